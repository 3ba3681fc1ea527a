package api

import "regexp"

// command matches a command within a text: words in double quotes, the first one the name of a program.
var command = regexp.MustCompile(`"([a-z][a-z0-9-]* [^"\n]+)"`)

// Commands returns the commands that a remedy or a hint quotes, in their order, each once.
func Commands(remedy string) (commands []string) {
	seen := map[string]bool{}
	for _, m := range command.FindAllStringSubmatch(remedy, -1) {
		if !seen[m[1]] {
			seen[m[1]] = true
			commands = append(commands, m[1])
		}
	}
	return commands
}
