package docgen

import "strings"

// Unquoted returns the lines of output in a datadriven file, as golden is, that a document does not have as a line of its
// own. White space around lines does not count.
func Unquoted(golden, document string) (missing []string) {
	quoted := map[string]bool{}
	for line := range strings.Lines(document) {
		quoted[strings.TrimSpace(line)] = true
	}
	lines := strings.Split(golden, "\n")
	for i, line := range lines {
		isOutput := line != "" && line[0] != '#' && line != "----" && (i+1 == len(lines) || lines[i+1] != "----")
		if isOutput && !quoted[strings.TrimSpace(line)] {
			missing = append(missing, line)
		}
	}
	return missing
}
