package settings

import (
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"weft/internal/hint"
	"weft/internal/suggest"
)

// Environment returns the environment variables of this process.
func Environment() map[string]string {
	env := map[string]string{}
	for _, entry := range os.Environ() {
		name, value, _ := strings.Cut(entry, "=")
		env[name] = value
	}
	return env
}

// A Kubernetes Service called weft, or weft-something, puts "service links" into the environment of every container of its namespace
// (kubernetes.io/docs, "Service", "Environment variables"). They have the prefix of weft's own variables, and must not stop a node.
// WEFT_PORT, which is a link and a flag, is distinguished by its value.
var (
	serviceLink = regexp.MustCompile(`_SERVICE_(HOST|PORT(_[A-Z0-9_]+)?)$|_PORT_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?$`)
	linkedPort  = regexp.MustCompile(`_PORT$`)
	linkedValue = regexp.MustCompile(`^(tcp|udp|sctp)://`)
)

// isServiceLink reports whether Kubernetes has set a variable.
func isServiceLink(name, value string) bool {
	return serviceLink.MatchString(name) || linkedPort.MatchString(name) && linkedValue.MatchString(value)
}

// otherVariables are the variables with weft's prefix, without it, that are for other programs than the node: weft-kube, tests, and the
// scripts of a release.
var otherVariables = []string{
	"APISERVER", "IDENTITIES", "IMAGE", "PLAIN", // weft-kube
	"LAB", "MONKEY", "REPLAY", "SCREENSHOTS", "SEED", "SIM", "TEST", "WIREGUARD", // tests
	"RELEASE_IMAGE", "RELEASE_PARTS", "SIGN_KEY", "SIGN_PGP_KEY", "SIGN_PUB", // releases
	"WAIT", // reserved for "--wait" of commands, which is not a flag of a node
}

// variable returns the name of the environment variable of a flag.
func variable(prefix, flag string) string {
	return prefix + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// unknownVariable returns an error for the first variable, in alphabetical order, that has the prefix and no meaning.
func unknownVariable(flags *pflag.FlagSet, prefix string, env map[string]string, except []string) error {
	var names []string // of known variables, without the prefix
	flags.VisitAll(func(f *pflag.Flag) { names = append(names, variable("", f.Name)) })
	for _, name := range slices.Sorted(maps.Keys(env)) {
		rest, ours := strings.CutPrefix(name, prefix)
		if !ours || slices.Contains(names, rest) || slices.Contains(otherVariables, rest) || isServiceLink(name, env[name]) ||
			slices.ContainsFunc(except, func(e string) bool { return variable(prefix, e) == name }) {
			continue
		}
		advice := "Unset it: the variables of a node are " + prefix + " and the name of a flag of \"weft up\"."
		if near, ok := suggest.Nearest(rest, names); ok {
			advice = "Did you mean " + prefix + near + "? Otherwise u" + strings.TrimPrefix(advice, "U")
		}
		return hint.New(hint.Usage, advice, "the environment variable %s is unknown", name)
	}
	return nil
}
