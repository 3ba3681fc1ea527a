package statuspage

import (
	"regexp"
	"slices"
	"strings"
	"time"

	"weft/internal/api"
)

// maxWarnings is how many conditions push the peers down. Further ones are folded away.
const maxWarnings = 4

// warningsView is the conditions of the node, the most severe first.
type warningsView struct {
	Count       int
	Shown, More []warning
}

// warning is a condition of the node.
type warning struct {
	api.Condition
	Began    moment
	Advice   []span   // the remedy, without commands at its end
	Commands []string // of the remedy, each once
}

// span is a part of a sentence.
type span struct {
	Text string
	Code bool // a command
}

func newWarnings(conditions []api.Condition, now time.Time) warningsView {
	var list []warning
	for _, c := range conditions {
		w := warning{Condition: c, Began: newMoment(c.Since, now)}
		w.Advice, w.Commands = advice(c.Remedy)
		list = append(list, w)
	}
	shown := min(len(list), maxWarnings)
	return warningsView{Count: len(list), Shown: list[:shown], More: list[shown:]}
}

// quoted matches a part of a remedy in quotation marks, in which remedies write commands.
var quoted = regexp.MustCompile(`"([^"]+)"`)

// programs are the first words of commands in remedies. Other quoted text, such as a value of an annotation, is no command.
var programs = []string{"weft", "weft-kube", "ethtool", "ip", "iptables", "kubectl", "nft", "ss", "sysctl", "systemctl"}

// advice splits a remedy into its sentences, with commands apart from text, and the list of its commands. Commands at the end
// of the remedy are only in the list, which the page shows below the sentences.
func advice(remedy string) (spans []span, commands []string) {
	rest := remedy
	for _, at := range slices.Backward(quoted.FindAllStringSubmatchIndex(remedy, -1)) {
		command := remedy[at[2]:at[3]]
		if program, _, _ := strings.Cut(command, " "); !slices.Contains(programs, program) {
			continue
		}
		spans = append(spans, span{Text: rest[at[1]:]}, span{Text: command, Code: true})
		rest = rest[:at[0]]
		if !slices.Contains(commands, command) {
			commands = append(commands, command)
		}
	}
	spans = append(spans, span{Text: rest})
	slices.Reverse(spans)
	slices.Reverse(commands)
	return withoutLastCommands(spans), commands
}

// withoutLastCommands returns spans without the commands that nothing but punctuation follows, and with a colon instead.
func withoutLastCommands(spans []span) []span {
	n := len(spans)
	for n > 0 && (spans[n-1].Code || strings.Trim(spans[n-1].Text, " ,.") == "") {
		n--
	}
	if n == len(spans) || n == 0 {
		return spans
	}
	spans = spans[:n]
	last := &spans[n-1]
	last.Text = strings.TrimRight(last.Text, " :") + ":"
	return spans
}
