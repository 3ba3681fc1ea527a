// Package printable makes text of other nodes and programs safe to show on a terminal. Control characters in it would act on
// the terminal, line breaks would make lines that look like weft's own, and characters that are invisible or turn the direction of text
// would hide what it is.
package printable

import (
	"io"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// substitute stands for each character that is not shown. It is one byte, so that no text gets longer.
const substitute = '.'

// Text returns s for one line or one cell of a table: each character that is not printable, and each byte that is not UTF-8,
// is a dot. Spaces are printable; line breaks and tabs are not. It does not allocate for text that is printable.
func Text(s string) string { return replace(s, isShown) }

// Lines returns s for several lines: as Text, but line breaks and tabs stay.
func Lines(s string) string { return replace(s, isShownInLines) }

// isShown reports whether r is printable and visible.
func isShown(r rune) bool {
	if r < utf8.RuneSelf {
		return ' ' <= r && r <= '~'
	}
	return unicode.IsPrint(r) && !unicode.In(r, unicode.Other_Default_Ignorable_Code_Point, unicode.Variation_Selector)
}

func isShownInLines(r rune) bool { return r == '\n' || r == '\t' || isShown(r) }

func replace(s string, shown func(rune) bool) string {
	if !hasOthers(s, shown) {
		return s
	}
	var b strings.Builder
	for i, r := range s {
		if r == utf8.RuneError && !strings.HasPrefix(s[i:], string(utf8.RuneError)) || !shown(r) {
			r = substitute
		}
		b.WriteRune(r)
	}
	return b.String()
}

func hasOthers(s string, shown func(rune) bool) bool {
	for _, r := range s {
		if !shown(r) {
			return true
		}
	}
	return !utf8.ValidString(s)
}

// Writer passes text to W as Lines does. A character may be split between two calls of Write. A Writer is for one goroutine.
type Writer struct {
	W io.Writer

	rest []byte // the beginning of a character, at most 3 bytes
}

// Write implements io.Writer. An error is that of W.
func (w *Writer) Write(b []byte) (int, error) {
	text := append(w.rest, b...)
	whole := len(text)
	for back := 1; back < utf8.UTFMax && back <= len(text); back++ {
		if start := len(text) - back; utf8.RuneStart(text[start]) {
			if !utf8.FullRune(text[start:]) {
				whole = start
			}
			break
		}
	}
	w.rest = append([]byte(nil), text[whole:]...)
	if _, err := io.WriteString(w.W, Lines(string(text[:whole]))); err != nil {
		return 0, err
	}
	return len(b), nil
}

// JSON returns a JSON document in which each character of a string that is not printable is an escape (RFC 8259, section 7).
// The values stay the same.
func JSON(document []byte) []byte {
	const digits = "0123456789abcdef"
	out := make([]byte, 0, len(document))
	for _, r := range string(document) {
		if isShownInLines(r) {
			out = utf8.AppendRune(out, r)
			continue
		}
		for _, unit := range utf16.Encode([]rune{r}) {
			out = append(out, '\\', 'u', digits[unit>>12], digits[unit>>8&0xf], digits[unit>>4&0xf], digits[unit&0xf])
		}
	}
	return out
}
