package dns

import (
	"testing"

	"go.uber.org/goleak"
)

// testDomain is the domain of names in tests.
const testDomain = "weft.local"

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }
