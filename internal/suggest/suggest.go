// Package suggest finds the word that a person may have meant by one that does not exist: "did you mean".
package suggest

import (
	"slices"
	"strings"
)

// minPrefix is the length in bytes of the shortest beginning of a word that stands for the word.
const minPrefix = 3

// Nearest returns the word of the list that is most like word, and false if none is like it: a word that differs by few letters, or
// one that word is the beginning of. Letters are the same in upper and lower case. Of several words the first one is returned.
func Nearest(word string, list []string) (nearest string, ok bool) {
	least := (len(word)+2)/3 + 1 // one more than the largest distance that is accepted
	for _, candidate := range list {
		a, b := strings.ToLower(word), strings.ToLower(candidate)
		d := distance(a, b)
		if len(a) >= minPrefix && strings.HasPrefix(b, a) {
			d = min(d, 1)
		}
		if d < least {
			nearest, least, ok = candidate, d, true
		}
	}
	return nearest, ok
}

// distance returns how many letters have to be inserted, removed, replaced, or swapped with their neighbor to make b of a: the
// optimal string alignment distance.
func distance(a, b string) int {
	before, row := []int(nil), make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		next := make([]int, len(b)+1)
		next[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			next[j+1] = slices.Min([]int{row[j] + cost, row[j+1] + 1, next[j] + 1})
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				next[j+1] = min(next[j+1], before[j-1]+1)
			}
		}
		before, row = row, next
	}
	return row[len(b)]
}
