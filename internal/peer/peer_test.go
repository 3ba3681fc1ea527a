package peer

import (
	"errors"
	"testing"
)

func TestIDText(t *testing.T) {
	id := FromPublicKey([KeySize]byte{1})
	parsed, err := ParseID(id.String())
	if err != nil || parsed != id {
		t.Fatalf("ParseID(%q) = %v, %v; want %v", id.String(), parsed, err, id)
	}
	for _, bad := range []string{"", "0011", "zz11223344556677", "00112233445566778"} {
		if _, err := ParseID(bad); !errors.Is(err, ErrBadID) {
			t.Errorf("ParseID(%q) = %v, want ErrBadID", bad, err)
		}
	}
}

func TestIDZeroText(t *testing.T) {
	text, err := ID{}.MarshalText()
	if err != nil || len(text) != 0 {
		t.Fatalf("zero ID marshals to %q, %v; want nothing", text, err)
	}
	id := ID{1}
	if err := id.UnmarshalText(nil); err != nil || !id.IsZero() {
		t.Fatalf("UnmarshalText(nil) leaves %v, %v", id, err)
	}
}

func TestIDCompare(t *testing.T) {
	low, high := ID{1, 2}, ID{1, 3}
	if low.Compare(high) != -1 || high.Compare(low) != 1 || low.Compare(low) != 0 {
		t.Fatal("Compare does not order by bytes")
	}
}
