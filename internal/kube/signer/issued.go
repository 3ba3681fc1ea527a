package signer

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"

	"weft/internal/peer"
)

// IssuedName is the name of the ConfigMap that records certificates. Its keys are names of nodes. Each value has a line for each key
// of the node that has a valid certificate: ID, end of validity (RFC 3339), UID of the Node.
const IssuedName = "weft-issued"

// record is a line of the ConfigMap.
type record struct {
	node, uid string
	id        peer.ID
	until     time.Time
}

func (r record) String() string {
	return fmt.Sprintf("%s %s %s", r.id, r.until.UTC().Format(time.RFC3339), r.uid)
}

func parseRecord(node, line string) (record, error) {
	parts := strings.Fields(line)
	if len(parts) != 3 {
		return record{}, fmt.Errorf("signer: ConfigMap %s: %q of node %s has not three parts", IssuedName, line, node)
	}
	id, err := peer.ParseID(parts[0])
	if err != nil {
		return record{}, fmt.Errorf("signer: ConfigMap %s: node %s: %w", IssuedName, node, err)
	}
	until, err := time.Parse(time.RFC3339, parts[1])
	if err != nil {
		return record{}, fmt.Errorf("signer: ConfigMap %s: node %s: %w", IssuedName, node, err)
	}
	return record{node, parts[2], id, until}, nil
}

// issued records which keys have certificates, so that a node has one key, and all keys of a node are known when it is shut out.
type issued struct {
	api    typedcorev1.ConfigMapInterface
	latest *corev1.ConfigMap // as it was read or written last; nil: not known
}

// add records a certificate before it is signed. It refuses a second key of the same Node object while the first has a valid
// certificate: a node that was taken over cannot get certificates for a crowd of others.
func (i *issued) add(ctx context.Context, r record, now time.Time) (*refusal, error) {
	before := i.latest
	i.latest = nil // until this succeeds
	var err error
	if before == nil {
		if before, err = i.api.Get(ctx, IssuedName, metav1.GetOptions{}); err != nil {
			return nil, fmt.Errorf("signer: reading the ConfigMap %s: %w", IssuedName, err)
		}
	}
	lines := []string{r.String()}
	for line := range strings.Lines(before.Data[r.node]) {
		old, err := parseRecord(r.node, line)
		switch {
		case err != nil:
			return nil, err
		case old.id == r.id || !now.Before(old.until):
			continue
		case old.uid == r.uid:
			i.latest = before
			return refuse("OtherKey", "node %s has a certificate for another key, %s, until %s; if its disk is new, remove its entry from "+
				"the ConfigMap %s, or delete the Node object", r.node, old.id, old.until.Format(time.RFC3339), IssuedName), nil
		}
		lines = append(lines, old.String())
	}
	slices.Sort(lines[1:])
	next := before.DeepCopy()
	if next.Data == nil {
		next.Data = map[string]string{}
	}
	removeExpired(next.Data, now)
	next.Data[r.node] = strings.Join(lines, "\n") + "\n"
	if i.latest, err = i.api.Update(ctx, next, metav1.UpdateOptions{}); err != nil {
		i.latest = nil
		return nil, fmt.Errorf("signer: writing the ConfigMap %s: %w", IssuedName, err)
	}
	return nil, nil
}

// removeExpired removes the nodes of which all certificates have expired. It leaves what cannot be read.
func removeExpired(nodes map[string]string, now time.Time) {
	for node, text := range nodes {
		valid := false
		for line := range strings.Lines(text) {
			r, err := parseRecord(node, line)
			valid = valid || err != nil || now.Before(r.until)
		}
		if !valid {
			delete(nodes, node)
		}
	}
}
