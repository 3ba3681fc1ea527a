package mesh

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"time"

	"weft/internal/identity"
	"weft/internal/peer"
	"weft/mesh/gate"
	"weft/mesh/mismatch"
	"weft/mesh/seal"
)

// handshakeTimeout bounds the handshake of a stream, at both ends.
const handshakeTimeout = 5 * time.Second

// Errors of streams.
var (
	errNotNode     = errors.New("mesh: another node is at that address")
	errNotAdmitted = errors.New("mesh: node not admitted")
	errBusy        = errors.New("mesh: too many streams")
)

// ErrRefused is the error of a stream that the other node has refused because it does not admit this one.
var ErrRefused = errors.New("mesh: the other node does not admit this one")

// RefusedError is the error of a stream that the other node has refused, for another reason than its secret.
type RefusedError struct {
	Reason   seal.Refusal
	Identity identity.Refusal // why the certificate of this node does not admit it; zero: the other node has not said it
}

// Error implements error.
func (e *RefusedError) Error() string {
	text := "mesh: stream refused: the other node " + e.Reason.String()
	if e.Identity != 0 {
		text += ", which " + e.Identity.String()
	}
	return text
}

// Is reports whether target is ErrRefused, for the reason that it stands for.
func (e *RefusedError) Is(target error) bool {
	return target == ErrRefused && e.Reason == seal.RefusedMember
}

// maxStatus is how long a status may be: a refusal, and room for what later versions may say about it.
const maxStatus = 64

// stream is an authenticated stream to or from another node.
type stream struct {
	net.Conn
	session *seal.Session
	remote  seal.Remote
	id      peer.ID
	budget  seal.Share // of the messages that it receives
}

// hello returns what this node states in a handshake.
func (t *sealedTransport) hello() seal.Hello {
	return seal.Hello{
		Instance: t.mesh.instance, Started: t.mesh.started, Counter: t.counter.Load(), Uptime: t.uptime(),
		Addr: t.mesh.at.Load().addr, Credentials: t.mesh.credentials.Show(),
	}
}

// openStream opens a stream to the node at addr, under each key that may work. If id is not zero the node there must be
// that one. An error about the key is a *mismatch.Error.
func (t *sealedTransport) openStream(addr string, id peer.ID, timeout time.Duration) (s *stream, err error) {
	own, derived := t.mesh.keys.ForStream(id)
	for i := range own {
		var conn net.Conn
		if conn, err = t.under.DialTimeout(addr, timeout); err != nil {
			return nil, err
		}
		if s, err = t.initiate(conn, addr, id, own[i], derived[i]); err == nil {
			return s, nil
		}
		_ = conn.Close()
		if !isOtherSecret(err) {
			break
		}
	}
	return nil, err
}

// initiate performs the handshake of the end that has dialed.
func (t *sealedTransport) initiate(conn net.Conn, addr string, id peer.ID, own GossipKey, keys *seal.Keys) (*stream, error) {
	asked := time.Now()
	if err := conn.SetDeadline(asked.Add(handshakeTimeout)); err != nil {
		return nil, err
	}
	state, first, err := seal.Initiate(t.end, keys)
	if err != nil {
		return nil, err
	}
	if _, err := conn.Write(first); err != nil {
		return nil, err
	}
	var answer [1]byte
	if _, err := io.ReadFull(conn, answer[:]); err != nil {
		return nil, fmt.Errorf("mesh: no answer to the first message: %w", err)
	}
	if reason := seal.Refusal(answer[0]); reason != seal.Accepted {
		return nil, t.refused(addr, reason)
	}
	second, err := readShort(conn, seal.MaxSecond)
	if err != nil {
		return nil, err
	}
	third, remote, session, err := state.Finish(second, t.hello())
	if err != nil {
		return nil, err
	}
	s := &stream{
		Conn: conn, session: session, remote: remote, id: peer.FromPublicKey(remote.Public),
		budget: t.replies.Share(gate.PrefixOf(conn.RemoteAddr())),
	}
	if !id.IsZero() && s.id != id {
		return nil, fmt.Errorf("%w: %s instead of %s", errNotNode, s.id, id)
	}
	if err := t.mesh.credentials.Check(remote.Public, remote.Credentials, own.Fingerprint); err != nil {
		t.mesh.drops.notAdmitted.Add(1)
		return nil, fmt.Errorf("%w: %w", errNotAdmitted, err)
	}
	if err := writeShort(conn, third); err != nil {
		return nil, err
	}
	if err := t.mesh.meetTwin(remote); err != nil {
		return nil, err
	}
	if err := s.awaitStatus(t, addr); err != nil {
		return nil, err
	}
	t.admit(remote, asked)
	return s, nil
}

// refused returns the error about a node at addr that has refused a stream.
func (t *sealedTransport) refused(addr string, reason seal.Refusal) error {
	at, _ := netip.ParseAddrPort(addr)
	switch {
	case reason == seal.RefusedNoKey:
		return &mismatch.Error{Addr: at, Reason: mismatch.There}
	case reason == seal.RefusedKey && t.mesh.keys.Sealed():
		return &mismatch.Error{Addr: at, Reason: mismatch.Other}
	case reason == seal.RefusedKey:
		return &mismatch.Error{Addr: at, Reason: mismatch.Here}
	default:
		return &RefusedError{Reason: reason}
	}
}

// acceptStream performs the handshake of the end that was dialed, and sends the result to the other one.
func (t *sealedTransport) acceptStream(e *gate.Stream) (*stream, error) {
	if err := e.SetDeadline(time.Now().Add(handshakeTimeout)); err != nil {
		return nil, err
	}
	state, own, err := t.respond(e)
	if err != nil {
		return nil, err
	}
	asked := time.Now()
	second, err := state.Answer(t.hello())
	if err != nil {
		return nil, err
	}
	answer := binary.BigEndian.AppendUint16([]byte{byte(seal.Accepted)}, uint16(len(second)))
	if _, err := e.Write(append(answer, second...)); err != nil {
		return nil, err
	}
	third, err := readShort(e, seal.MaxThird)
	if err != nil {
		return nil, err
	}
	remote, session, err := state.Finish(third)
	if err != nil {
		return nil, err
	}
	s := &stream{
		Conn: e, session: session, remote: remote, id: peer.FromPublicKey(remote.Public),
		budget: t.budget.Share(gate.PrefixOf(e.RemoteAddr())),
	}
	reason, err := t.judge(e, s, own)
	if err == nil {
		t.admit(remote, asked)
	}
	return s, errors.Join(err, s.sendStatus(reason, identityRefusal(err)...))
}

// respond reads the first message of a handshake. It refuses one that it cannot use, in plain.
func (t *sealedTransport) respond(e *gate.Stream) (*seal.Responder, GossipKey, error) {
	var first [seal.FirstLen]byte
	if _, err := io.ReadFull(e, first[:1]); err != nil {
		return nil, GossipKey{}, err
	}
	if first[0] != seal.Version {
		return nil, GossipKey{}, errors.Join(seal.ErrVersion, refuse(e, seal.RefusedVersion))
	}
	if _, err := io.ReadFull(e, first[1:]); err != nil {
		return nil, GossipKey{}, err
	}
	inUse := t.mesh.keys.InUse()
	state, key, err := seal.Respond(t.end, inUse.Derived, first[:])
	if err == nil {
		return state, inUse.Own[key], nil
	}
	if errors.Is(err, seal.ErrKey) {
		code, reason := seal.RefusedKey, mismatch.Other
		if !t.mesh.keys.Sealed() {
			code, reason = seal.RefusedNoKey, mismatch.Here
		} else if _, _, plainErr := seal.Respond(t.end, []*seal.Keys{t.plain}, first[:]); plainErr == nil {
			reason = mismatch.There
		}
		t.mesh.reportMismatch(gate.HostOf(e.RemoteAddr()), reason)
		err = errors.Join(err, refuse(e, code))
	}
	return nil, GossipKey{}, err
}

// judge decides whether a node may open a stream under a key.
func (t *sealedTransport) judge(e *gate.Stream, s *stream, own GossipKey) (seal.Refusal, error) {
	if err := t.mesh.meetTwin(s.remote); err != nil {
		return seal.RefusedMember, err
	}
	if err := t.mesh.credentials.Check(s.remote.Public, s.remote.Credentials, own.Fingerprint); err != nil {
		return seal.RefusedMember, fmt.Errorf("%w: %w", errNotAdmitted, err)
	}
	if !t.mesh.keys.Admits(own, s.id) {
		return seal.RefusedKey, fmt.Errorf("%w: a member has not that key", seal.ErrKey)
	}
	if !e.Authenticate(s.id) {
		return seal.RefusedBusy, errBusy
	}
	return seal.Accepted, nil
}

// refuse sends a refusal in plain.
func refuse(w io.Writer, reason seal.Refusal) error {
	_, err := w.Write([]byte{byte(reason)})
	return err
}

// sendStatus sends a refusal, or its absence, and what follows it.
func (s *stream) sendStatus(reason seal.Refusal, more ...byte) error {
	return s.session.WriteMessage(s.Conn, seal.Status, append([]byte{byte(reason)}, more...))
}

// identityRefusal returns what follows a refusal for err in a status.
func identityRefusal(err error) []byte {
	if e, ok := errors.AsType[*identity.Error](err); ok {
		return []byte{byte(e.Refusal)}
	}
	return nil
}

// awaitStatus receives what sendStatus has sent at the other end.
func (s *stream) awaitStatus(t *sealedTransport, addr string) error {
	kind, msg, err := s.session.ReadMessage(s.Conn, maxStatus, s.budget)
	if err != nil {
		return fmt.Errorf("mesh: no status: %w", err)
	}
	defer s.budget.Give(cap(msg))
	if kind != seal.Status || len(msg) == 0 {
		return fmt.Errorf("%w: status", seal.ErrMalformed)
	}
	switch reason := seal.Refusal(msg[0]); {
	case reason == seal.Accepted:
		return nil
	case reason == seal.RefusedMember && len(msg) > 1:
		return &RefusedError{Reason: reason, Identity: identity.Refusal(msg[1])}
	default:
		return t.refused(addr, reason)
	}
}

// readShort reads a message of a handshake: its length in 2 bytes, at most most, and the bytes.
func readShort(r io.Reader, most int) ([]byte, error) {
	var head [2]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	n := int(binary.BigEndian.Uint16(head[:]))
	if n > most {
		return nil, fmt.Errorf("%w: a message of %d bytes in a handshake", seal.ErrMalformed, n)
	}
	b := make([]byte, n)
	_, err := io.ReadFull(r, b)
	return b, err
}

// writeShort writes a message of a handshake.
func writeShort(w io.Writer, b []byte) error {
	_, err := w.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(b))), b...))
	return err
}
