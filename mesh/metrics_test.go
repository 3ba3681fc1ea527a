package mesh

import (
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"
)

func TestMetricsLint(t *testing.T) {
	m, err := New(Config{Identity: nodeIdentity(t), Transport: (&network{}).transport(t), Advertise: unusedAddr})
	if err != nil {
		t.Fatal(err)
	}
	delegate{m}.NotifyMsg([]byte{99})
	problems, err := testutil.CollectAndLint(m.Collector())
	if err != nil || len(problems) > 0 {
		t.Errorf("%v, %v", problems, err)
	}
	if err := m.enqueue(outgoing{}); err != nil { // nothing is sent before Run
		t.Fatal(err)
	}
	want := `
# HELP weft_mesh_queued_messages Messages to one member each that wait to be sent.
# TYPE weft_mesh_queued_messages gauge
weft_mesh_queued_messages 1
`
	if err := testutil.CollectAndCompare(m.Collector(), strings.NewReader(want), "weft_mesh_queued_messages"); err != nil {
		t.Error(err)
	}
	if n := testutil.CollectAndCount(m.Collector(), "weft_mesh_drops_total"); n != 14 {
		t.Errorf("%d reasons", n)
	}
}
