package main

import (
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// flagTests has for each command and each flag of its own a test that runs it on hosts, in internal/e2e.
var flagTests = map[string]string{
	"attach":                            "TestAttachAndDetachLeaveNothing",
	"attach --add-ip":                   "TestSingleAddresses",
	"attach --allow-address":            "TestGuardStays",
	"attach --container":                "TestAttachContainer",
	"attach --guard":                    "TestGuardStays",
	"attach --hostname":                 "TestPodMovesWithItsAddress",
	"attach --ifname":                   "TestOneOwnerOneAttachment",
	"attach --in":                       "TestSubnets",
	"attach --ip":                       "TestAttachWithAnotherNodesAddress",
	"attach --json":                     "TestOutput",
	"attach --netns":                    "TestSingleAddresses",
	"attach --no-multicast-route":       "TestMulticastBesideAnotherDefaultRoute",
	"attach --owner":                    "TestOneOwnerOneAttachment",
	"attach --pid":                      "TestAttachByProcess",
	"attach --remove-ip":                "TestSingleAddresses",
	"ca":                                "TestOutput",
	"ca init":                           "TestIdentities",
	"ca init --dir":                     "TestIdentities",
	"ca sign":                           "TestIdentities",
	"ca sign --addresses":               "TestIdentityFiles",
	"ca sign --dir":                     "TestIdentities",
	"ca sign --expires":                 "TestIdentities",
	"ca sign --name":                    "TestIdentities",
	"capture":                           "TestWeftCapture",
	"capture --count":                   "TestWeftCapture",
	"capture --peer":                    "TestWeftCapture",
	"capture --snaplen":                 "TestWeftCapture",
	"capture --write":                   "TestWeftCapture",
	"completion":                        "TestOutput",
	"completion bash":                   "TestOutput",
	"completion bash --no-descriptions": "TestOutput",
	"completion fish":                   "TestOutput",
	"completion fish --no-descriptions": "TestOutput",
	"completion powershell":             "TestOutput",
	"completion powershell --no-descriptions": "TestOutput",
	"completion zsh":                   "TestOutput",
	"completion zsh --no-descriptions": "TestOutput",
	"connect":                          "TestConnectAndForget",
	"connect --replace":                "TestConnectAndForget",
	"detach":                           "TestAttachAndDetachLeaveNothing",
	"detach --container":               "TestAttachContainer",
	"detach --ifname":                  "TestAttachByProcess",
	"detach --netns":                   "TestAttachAndDetachLeaveNothing",
	"detach --owner":                   "TestOneOwnerOneAttachment",
	"detach --pid":                     "TestAttachByProcess",
	"dns":                              "TestNames",
	"dns add":                          "TestNames",
	"dns add --external":               "TestNames",
	"dns address":                      "TestDocker",
	"dns list":                         "TestNames",
	"dns list --json":                  "TestOutput",
	"dns lookup":                       "TestNames",
	"dns lookup --json":                "TestOutput",
	"dns remove":                       "TestNames",
	"dns resolved":                     "TestNames",
	"doctor":                           "TestDoctor",
	"doctor --color":                   "TestOutput",
	"doctor --json":                    "TestOutput",
	"expose":                           "TestExposedPrefixLength",
	"expose --inward":                  "TestInward",
	"fdb":                              "TestMACMoves",
	"fdb --json":                       "TestOutput",
	"forget":                           "TestConnectAndForget",
	"help":                             "TestOutput",
	"hide":                             "TestExposeAndHide",
	"identity":                         "TestOutput",
	"identity request":                 "TestIdentities",
	"identity request --name":          "TestIdentities",
	"identity request --state-dir":     "TestIdentities",
	"ip":                               "TestOutput",
	"ip allocate":                      "TestAddressesByOwner",
	"ip allocate --in":                 "TestAddressesByOwner",
	"ip claim":                         "TestAddressesByOwner",
	"ip list":                          "TestAddressesByOwner",
	"ip list --json":                   "TestOutput",
	"ip lookup":                        "TestAddressesByOwner",
	"ip lookup --json":                 "TestOutput",
	"ip release":                       "TestAddressesByOwner",
	"ipam":                             "TestSharesAreEqual",
	"ipam --json":                      "TestOutput",
	"leave":                            "TestLeaveHandsTheAddressesOver",
	"peers":                            "TestNodeDiesAndReturns",
	"peers --json":                     "TestOutput",
	"peers --problems":                 "TestConditions",
	"reclaim":                          "TestIdentities",
	"reclaim --json":                   "TestIdentities",
	"reload":                           "TestIdentities",
	"reload --json":                    "TestOutput",
	"report":                           "TestOutput",
	"revoke":                           "TestIdentities",
	"revoke --dir":                     "TestIdentities",
	"revoke --json":                    "TestIdentityFiles",
	"revoke --list":                    "TestIdentityFiles",
	"revoke --out":                     "TestIdentityFiles",
	"routes":                           "TestOutput",
	"routes --json":                    "TestOutput",
	"secret":                           "TestOutput",
	"secret generate":                  "TestRemedyOfAnotherSecret",
	"status":                           "TestEveryPairOfPodsPings",
	"status --color":                   "TestOutput",
	"status --json":                    "TestOutput",
	"top":                              "TestTop",
	"top --color":                      "TestOutput",
	"top --count":                      "TestTopEnds",
	"top --interval":                   "TestTop",
	"top --json":                       "TestOutput",
	"top --sort":                       "TestOutput",
	"up":                               "TestHour",
	"up --advertise":                   "TestDualStack",
	"up --aes":                         "TestStandardAES",
	"up --allow-overlap":               "TestAllowOverlap",
	"up --broadcast-limit":             "TestBroadcastLimit",
	"up --bridge":                      "TestNamesAndPorts",
	"up --busy-poll":                   "TestBusyPoll",
	"up --carriers":                    "TestWireGuardWithOneSide",
	"up --cipher":                      "TestNoCommonCipher",
	"up --config":                      "TestIdentities",
	"up --datapath":                    "TestMACMoves",
	"up --direct-routing":              "TestInward",
	"up --dns-domain":                  "TestRemedyOfAnotherDomain",
	"up --dscp":                        "TestECN",
	"up --guard":                       "TestGuard",
	"up --http-addr":                   "TestNamesAndPorts",
	"up --identity":                    "TestIdentityFiles",
	"up --identity-ca":                 "TestIdentityFiles",
	"up --init-peers":                  "TestAgreedVNI",
	"up --lease-grace":                 "TestGarbageIsFreed",
	"up --log-format":                  "TestNamesAndPorts",
	"up --log-level":                   "TestNamesAndPorts",
	"up --mtu":                         "TestMTUOfRunningPods",
	"up --name":                        "TestPodIsNoNode",
	"up --no-arp-proxy":                "TestARPStaysOffTheOverlay",
	"up --no-discovery":                "TestNoDiscovery",
	"up --no-dns":                      "TestForwardedNames",
	"up --no-masquerade":               "TestNoMasquerade",
	"up --offload":                     "TestMixedModes",
	"up --peer-metrics":                "TestNamesAndPorts",
	"up --plain":                       "TestSecretTakenOut",
	"up --port":                        "TestNamesAndPorts",
	"up --queues":                      "TestOrder",
	"up --range":                       "TestDualStack",
	"up --secret-file":                 "TestDualStack",
	"up --socket":                      "TestPodIsNoNode",
	"up --source-check":                "TestSourceCheck",
	"up --source-ports":                "TestEntropyPort",
	"up --state-dir":                   "TestPodIsNoNode",
	"up --take-over":                   "TestTakeOver",
	"up --tap":                         "TestNamesAndPorts",
	"up --trusted-subnets":             "TestTrustedSubnets",
	"up --watch-secret":                "TestWatchSecret",
	"up --wireguard-device":            "TestWireGuardDeviceRefused",
	"version":                          "TestOutput",
	"version --json":                   "TestOutput",
	"wait":                             "TestConnectAndForget",
	"wait --for":                       "TestConnectAndForget",
	"wait --timeout":                   "TestConnectAndForget",
}

// sharedFlags are flags that no test need run, with the reason.
var sharedFlags = []struct {
	command string
	covers  func(flag string) bool
	reason  string
}{
	{"doctor", func(flag string) bool { return flagTests["up --"+flag] != "" }, "doctor evaluates the flags of up as up does"},
	{"", func(flag string) bool { return flag == "help" || flag == "version" }, "the library has them"},
}

// TestEveryFlagRuns: each command and each flag has an end-to-end test, which names it.
func TestEveryFlagRuns(t *testing.T) {
	root := newRootCommand(&env{stdout: io.Discard, stderr: io.Discard})
	files := endToEndTests(t)
	var known []string
	check := func(key string, mentions ...*regexp.Regexp) {
		known = append(known, key)
		test := flagTests[key]
		text, found := files[test]
		unnamed := func(r *regexp.Regexp) bool { return !r.MatchString(text) }
		switch {
		case test == "":
			t.Errorf("no test in internal/e2e runs %q: add one, and name it in flagTests", "weft "+key)
		case !found:
			t.Errorf("%q: there is no test %s in internal/e2e", key, test)
		case slices.ContainsFunc(mentions, unnamed):
			t.Errorf("%q: the file of %s does not name it", key, test)
		}
	}
	var walk func(c *cobra.Command)
	walk = func(c *cobra.Command) {
		var mentions []*regexp.Regexp
		words := strings.Fields(c.CommandPath())[1:]
		for _, word := range words {
			if word == "up" {
				word = "(up|start|pair|sealedPair)\\w*" // helpers of the tests
			}
			mentions = append(mentions, regexp.MustCompile(`\b`+word+`\b`))
		}
		command := strings.Join(words, " ")
		if c != root {
			check(command, mentions...)
		}
		c.LocalNonPersistentFlags().VisitAll(func(f *pflag.Flag) {
			for _, s := range sharedFlags {
				if (s.command == "" || s.command == command) && s.covers(f.Name) {
					return
				}
			}
			check(command+" --"+f.Name, append(mentions, mentionOf(f))...)
		})
		for _, sub := range c.Commands() {
			walk(sub)
		}
	}
	walk(root)
	for key := range flagTests {
		if !slices.Contains(known, key) {
			t.Errorf("flagTests has %q, which weft has not", key)
		}
	}
}

// mentionOf matches a flag in the source of a test. The helper query adds --json.
func mentionOf(f *pflag.Flag) *regexp.Regexp {
	text := "--" + f.Name + `\b`
	if f.Name == "json" {
		text += `|\bquery\[`
	}
	return regexp.MustCompile(text)
}

// endToEndTests returns the tests in internal/e2e, each with the text of its file.
func endToEndTests(t *testing.T) map[string]string {
	t.Helper()
	paths, err := filepath.Glob("../../internal/e2e/*_test.go")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no end-to-end tests: %v", err)
	}
	tests := map[string]string{}
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(`(?m)^func (Test\w+)\(t \*testing\.T\)`).FindAllSubmatch(text, -1) {
			tests[string(m[1])] = string(text)
		}
	}
	return tests
}
