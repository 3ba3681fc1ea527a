package statuspage

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// dash stands for a value that does not exist.
const dash = "–"

// thousands separates groups of three digits: a narrow space at which no line breaks.
const thousands = "\u202f"

// countText returns a number in groups of three digits, such as "1 048 574".
func countText[N int | uint64](n N) string {
	digits := strconv.FormatUint(uint64(n), 10)
	var b strings.Builder
	for i, d := range digits {
		if i > 0 && (len(digits)-i)%3 == 0 {
			b.WriteString(thousands)
		}
		b.WriteRune(d)
	}
	return b.String()
}

// plural returns a number with its noun, such as "1 node" and "3 nodes".
func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return countText(n) + " " + noun + "s"
}

// shareText returns a share in percent. A share that is neither nothing nor everything never reads as such.
func shareText(part, of uint64) string {
	percent := 100 * float64(part) / float64(max(of, 1))
	switch {
	case part > 0 && percent < 0.5:
		return "< 1 %"
	case part < of && percent >= 99.5:
		return "> 99 %"
	}
	return fmt.Sprintf("%.0f %%", percent)
}

// scaled returns v with its unit and a decimal prefix. No line breaks in it.
func scaled(v float64, unit string) string {
	for _, prefix := range []string{"", "k", "M", "G", "T", "P"} {
		if v < 999.5 {
			if prefix == "" || v >= 99.5 {
				return fmt.Sprintf("%.0f\u00a0%s%s", v, prefix, unit)
			}
			return fmt.Sprintf("%.1f\u00a0%s%s", v, prefix, unit)
		}
		v /= 1000
	}
	return fmt.Sprintf("%.0f\u00a0E%s", v, unit)
}

func bytesText(n uint64) string     { return scaled(float64(n), "B") }
func rateText(bytes float64) string { return scaled(8*bytes, "bit/s") }
func rttText(ms float64) string     { return fmt.Sprintf("%.2f\u00a0ms", ms) }

// moment is a time, for people and for programs.
type moment struct {
	Distance string // such as "2 h ago" and "in 5 days"
	Exact    string // with the time zone
	Machine  string // RFC 3339
}

func newMoment(t, now time.Time) moment {
	t = t.In(now.Location())
	return moment{Distance: distance(now.Sub(t)), Exact: t.Format("2006-01-02 15:04:05 MST"), Machine: t.Format(time.RFC3339)}
}

// distance describes how long ago something was. Its result changes once a minute at most.
func distance(ago time.Duration) string {
	length := ago.Abs()
	var text string
	switch {
	case length < time.Minute:
		return "just now"
	case length < time.Hour:
		text = fmt.Sprintf("%d min", int(length.Minutes()))
	case length < 48*time.Hour:
		text = fmt.Sprintf("%d h", int(length.Hours()))
	default:
		text = fmt.Sprintf("%d days", int(length.Hours()/24))
	}
	if ago < 0 {
		return "in " + text
	}
	return text + " ago"
}

// shortened returns a text of at most length characters: the whole, or its begin with an ellipsis.
func shortened(text string, length int) string {
	if runes := []rune(text); len(runes) > length {
		return string(runes[:length-1]) + "…"
	}
	return text
}
