package mesh

import (
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"
)

func TestMetricsLint(t *testing.T) {
	m, err := New(Config{Identity: identity(t), Transport: (&network{}).transport(t), Advertise: nobodyAddr})
	if err != nil {
		t.Fatal(err)
	}
	delegate{m}.NotifyMsg([]byte{99})
	problems, err := testutil.CollectAndLint(m.Collector())
	if err != nil || len(problems) > 0 {
		t.Errorf("%v, %v", problems, err)
	}
	if n := testutil.CollectAndCount(m.Collector(), "weft_mesh_drops_total"); n != 7 {
		t.Errorf("%d reasons", n)
	}
}
