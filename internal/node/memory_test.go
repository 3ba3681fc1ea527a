package node

import (
	"os"
	"slices"
	"strings"
	"testing"
)

// TestReadOnlyMappings: only the mappings of the file that are not writable are found, and lines of another form are ignored.
func TestReadOnlyMappings(t *testing.T) {
	const maps = `00400000-00ffe000 r-xp 00000000 fe:00 9977971 /usr/bin/weft
01002000-01cee000 r--p 00c02000 fe:00 9977971 /usr/bin/weft
01cee000-01d66000 rw-p 018ee000 fe:00 9977971 /usr/bin/weft
7f4efbb0c000-7f4efbc62000 r-xp 00026000 fe:00 326269 /usr/bin/other/weft
7ffd1000-7ffd2000 r-xp 00000000 00:00 0 [vdso]
nonsense /usr/bin/weft
`
	want := []mapping{{0x400000, 0xffe000}, {0x1002000, 0x1cee000}}
	if got := readOnlyMappings(strings.NewReader(maps), "/usr/bin/weft"); !slices.Equal(got, want) {
		t.Errorf("%x, want %x", got, want)
	}
}

// TestReleaseText: this program runs on after its pages are unmapped.
func TestReleaseText(t *testing.T) {
	program, err := os.Readlink("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		t.Fatal(err)
	}
	if n := len(readOnlyMappings(strings.NewReader(string(maps)), program)); n < 2 {
		t.Errorf("%d mappings of %s, want those of code and constants", n, program)
	}
	if err := releaseText(); err != nil {
		t.Error(err)
	}
}
