// Package e2e is the part of the upstream end-to-end tests that is about the network, as a program of its own. Beside the flags of the
// upstream tests it has:
//
//	-list FOCUS -skip-names SKIP   prints the names of the tests that match one regular expression and not the other, each on a line
//	-names FILE                    runs only the tests with these names, one a line
//	-results FILE                  appends a line for each of these that has ended
//
// A line of results is a JSON object with the fields of result. Lines are appended in one write, so that several processes can have the
// same file, and a break loses only the test that was running.
package e2e

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/onsi/ginkgo/v2"
	"github.com/onsi/ginkgo/v2/types"
	"github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	_ "k8s.io/component-base/logs/testinit"
	_ "k8s.io/kubernetes/test/e2e/common/network"
	_ "k8s.io/kubernetes/test/e2e/feature"
	"k8s.io/kubernetes/test/e2e/framework"
	"k8s.io/kubernetes/test/e2e/framework/config"
	_ "k8s.io/kubernetes/test/e2e/framework/debug/init"
	_ "k8s.io/kubernetes/test/e2e/framework/node/init"
	"k8s.io/kubernetes/test/e2e/framework/testfiles"
	_ "k8s.io/kubernetes/test/e2e/network"
	e2etestingmanifests "k8s.io/kubernetes/test/e2e/testing-manifests"
	testfixtures "k8s.io/kubernetes/test/fixtures"
	netutils "k8s.io/utils/net"
)

// suite is the name of the whole. Ginkgo puts it before the name of a test when it matches expressions.
const suite = "network"

var (
	list      = flag.String("list", "", "print the names of the tests that match this expression, and run none")
	skipNames = flag.String("skip-names", "", "with -list: leave out the tests that match this expression")
	names     = flag.String("names", "", "file with the names of the tests to run, one a line")
	results   = flag.String("results", "", "file to which the results are appended")
)

// result is the result of one test. internal/e2e/kubernetes/outcome reads it.
type result struct {
	Name    string  `json:"name"`
	State   string  `json:"state"` // passed, failed or skipped
	Seconds float64 `json:"seconds"`
	Message string  `json:"message,omitempty"` // why it failed or was skipped
}

func TestMain(m *testing.M) {
	config.CopyFlags(config.Flags, flag.CommandLine)
	framework.RegisterCommonFlags(flag.CommandLine)
	framework.RegisterClusterFlags(flag.CommandLine)
	flag.Parse()
	testfiles.AddFileSource(e2etestingmanifests.GetE2ETestingManifestsFS())
	testfiles.AddFileSource(testfixtures.GetTestFixturesFS())
	framework.AfterReadingAllFlags(&framework.TestContext)
	os.Exit(m.Run())
}

func TestE2E(t *testing.T) {
	gomega.RegisterFailHandler(framework.Fail)
	suiteConfig, reporterConfig := framework.CreateGinkgoConfig()
	if *list != "" {
		suiteConfig.FocusStrings, suiteConfig.SkipStrings = []string{*list}, nil // the default leaves out all with a [Feature:…]
		if *skipNames != "" {
			suiteConfig.SkipStrings = []string{*skipNames}
		}
		for _, spec := range ginkgo.PreviewSpecs(suite, suiteConfig, reporterConfig).SpecReports {
			if !spec.State.Is(types.SpecStateSkipped|types.SpecStatePending) && spec.LeafNodeType == types.NodeTypeIt {
				fmt.Println("test:", spec.FullText())
			}
		}
		return
	}
	if *names != "" {
		suiteConfig.FocusStrings, suiteConfig.SkipStrings = nil, nil
		for _, name := range selection(t, *names) {
			selected[name] = true
			suiteConfig.FocusStrings = append(suiteConfig.FocusStrings, "^"+suite+" "+regexp.QuoteMeta(name)+"$")
		}
	}
	framework.TestContext.IPFamily = family(t)
	// Not before the flags are read, because that runs all tests dry, and Ginkgo would report those only.
	ginkgo.ReportAfterEach(record)
	ginkgo.RunSpecs(t, suite, suiteConfig, reporterConfig)
}

// selected are the tests that -names selects.
var selected = map[string]bool{}

// selection returns the lines of a file.
func selection(t *testing.T, path string) (list []string) {
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		list = append(list, strings.TrimSuffix(line, "\n"))
	}
	return list
}

// family returns the primary address family of the cluster, as the upstream tests find it.
func family(t *testing.T) string {
	client, err := framework.LoadClientset()
	if err != nil {
		t.Fatal(err)
	}
	service, err := client.CoreV1().Services(metav1.NamespaceDefault).Get(context.Background(), "kubernetes", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if netutils.IsIPv6String(service.Spec.ClusterIP) {
		return "ipv6"
	}
	return "ipv4"
}

// unfinished are the states of tests that did not come to an end: they have no result.
const unfinished = types.SpecStatePending | types.SpecStateInterrupted | types.SpecStateAborted

// record appends the result of a test. Ginkgo reports tests that are not selected as well.
func record(report ginkgo.SpecReport) {
	if *results == "" || !selected[report.FullText()] || report.State.Is(unfinished) {
		return
	}
	r := result{Name: report.FullText(), Seconds: report.RunTime.Round(time.Millisecond).Seconds(), Message: report.Failure.Message}
	switch {
	case report.State.Is(types.SpecStatePassed):
		r.State = "passed"
	case report.State.Is(types.SpecStateSkipped):
		r.State = "skipped"
	default:
		r.State = "failed"
	}
	line, err := json.Marshal(r)
	if err != nil {
		panic(err)
	}
	file, err := os.OpenFile(*results, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err == nil {
		_, err = file.Write(append(line, '\n'))
	}
	if err == nil {
		err = file.Close()
	}
	if err != nil {
		panic(err) // a test without a result would run again and again
	}
}
