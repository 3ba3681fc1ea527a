package plural

import "testing"

func TestCount(t *testing.T) {
	for want, got := range map[string]string{
		"0 pods": Count(0, "pod"), "1 pod": Count(1, "pod"), "2 pods": Count(uint64(2), "pod"), "-1 pods": Count(-1, "pod"),
		"3 addresses": Count(3, "address"), "2 entries": Count(2, "entry"), "2 keys": Count(2, "key"), "2 switches": Count(2, "switch"),
		"1 address": Count(int8(1), "address"), "2 paths": Count(2, "path"),
	} {
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	if Verb(1, "runs", "run") != "runs" || Verb(2, "runs", "run") != "run" {
		t.Error("the wrong verb")
	}
}
