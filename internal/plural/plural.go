// Package plural writes numbers of things in English.
package plural

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Integer is any type of integers.
type Integer interface {
	~int | ~int8 | ~int16 | ~int32 | ~int64 | ~uint | ~uint8 | ~uint16 | ~uint32 | ~uint64
}

// Count returns n with a noun: "1 pod", "2 pods". The noun is a singular with a regular plural: with -es after s, x, ch and sh, with
// -ies for a y after a consonant, else with -s.
func Count[N Integer](n N, noun string) string {
	if n != 1 {
		noun = of(noun)
	}
	return format(n) + " " + noun
}

// Verb returns singular for 1, else plural: Verb(n, "runs", "run").
func Verb[N Integer](n N, singular, plural string) string {
	if n == 1 {
		return singular
	}
	return plural
}

func format[N Integer](n N) string {
	if n < 0 {
		return strconv.FormatInt(int64(n), 10)
	}
	return strconv.FormatUint(uint64(n), 10)
}

// of returns the plural of a noun.
func of(noun string) string {
	last := len(noun) - 1
	switch {
	case last < 1:
		return noun + "s"
	case noun[last] == 's' || noun[last] == 'x' || noun[last] == 'h' && (noun[last-1] == 'c' || noun[last-1] == 's'):
		return noun + "es"
	case noun[last] == 'y' && !isVowel(noun[last-1]):
		return noun[:last] + "ies"
	}
	return noun + "s"
}

func isVowel(c byte) bool { return c == 'a' || c == 'e' || c == 'i' || c == 'o' || c == 'u' }

// most is how many names List returns.
const most = 8

// List returns names as a text, sorted, and of many only the first few with the number of the others. It changes their order.
func List(names []string) string {
	slices.Sort(names)
	if n := len(names); n > most {
		names = append(names[:most:most], fmt.Sprintf("and %d more", n-most))
	}
	return strings.Join(names, ", ")
}
