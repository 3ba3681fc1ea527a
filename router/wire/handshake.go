package wire

import "encoding/binary"

// The messages of the handshake (docs/PROTOCOL.md). Each begins with a Header with counter 0. The numbers in this
// drawing are lengths in bytes. The Noise messages and the MACs are opaque to this package.
//
//	            header 12       sender 4   Noise message                           MACs
//	Initiation | type 6, 0     | index    | e 32 | s 32+16 | payload 18+16        | 16 | 16 |
//	Response   | type 7, index | index    | e 32 |           payload  2+16        | 16 |
//	Cookie     | type 8, index | nonce 24 | cookie 16+16                          |
//
// The header of a Response and of a Cookie has the index that the sender of the Initiation chose.

// Lengths in bytes.
const (
	MACLen = 16
	// InitiationPayloadLen and ResponsePayloadLen are the lengths of the payloads of the two Noise messages, before
	// sealing.
	InitiationPayloadLen = 8 + 8 + 1 + 1
	ResponsePayloadLen   = 1 + 1
	// CookieNonceLen and SealedCookieLen are the lengths of the parts of a Cookie.
	CookieNonceLen  = 24
	SealedCookieLen = MACLen + TagLen

	keyLen    = 32 // of X25519
	senderLen = 4

	initiationNoiseLen = keyLen + keyLen + TagLen + InitiationPayloadLen + TagLen
	responseNoiseLen   = keyLen + ResponsePayloadLen + TagLen

	// InitiationLen, ResponseLen and CookieLen are the lengths of whole datagrams. No reply is longer than its request.
	InitiationLen = HeaderLen + senderLen + initiationNoiseLen + 2*MACLen
	ResponseLen   = HeaderLen + senderLen + responseNoiseLen + MACLen
	CookieLen     = HeaderLen + CookieNonceLen + SealedCookieLen
)

// Initiation is the first message of a handshake. The slices of a parsed one lie in the datagram.
type Initiation struct {
	Sender uint32 // the index of the new session at the sender; at most MaxSession, and not 0
	Noise  []byte
	// First is the MAC over all bytes before it: its maker knows the receiver's public key, and the secret.
	First []byte
	// Second is the MAC over all bytes before it with a cookie of the receiver: its maker receives datagrams at its
	// address. Zeros without a cookie.
	Second []byte
}

// Append appends the datagram without its MACs to b.
func (m Initiation) Append(b []byte) []byte {
	return append(appendStart(b, Header{Type: TypeInitiation}, m.Sender), m.Noise...)
}

// ParseInitiation reads the datagram b, which has type TypeInitiation. The error is ErrShort, or ErrHandshake if the
// datagram is too long or has no valid sender.
func ParseInitiation(b []byte) (Initiation, error) {
	if err := exactly(b, InitiationLen); err != nil {
		return Initiation{}, err
	}
	m := Initiation{
		Sender: binary.BigEndian.Uint32(b[HeaderLen:]),
		Noise:  b[HeaderLen+senderLen:][:initiationNoiseLen:initiationNoiseLen],
		First:  b[InitiationLen-2*MACLen:][:MACLen:MACLen],
		Second: b[InitiationLen-MACLen:],
	}
	return m, checkSender(m.Sender)
}

// Response is the reply to an Initiation. The slices of a parsed one lie in the datagram.
type Response struct {
	Receiver uint32 // the Sender of the Initiation
	Sender   uint32 // the index of the new session at the sender of the Response
	Noise    []byte
	First    []byte // as in Initiation
}

// Append appends the datagram without its MAC to b.
func (m Response) Append(b []byte) []byte {
	return append(appendStart(b, Header{Type: TypeResponse, Session: m.Receiver}, m.Sender), m.Noise...)
}

// ParseResponse reads the datagram b, which has type TypeResponse. Its errors are those of ParseInitiation.
func ParseResponse(b []byte) (Response, error) {
	if err := exactly(b, ResponseLen); err != nil {
		return Response{}, err
	}
	m := Response{
		Receiver: binary.BigEndian.Uint32(b) & MaxSession,
		Sender:   binary.BigEndian.Uint32(b[HeaderLen:]),
		Noise:    b[HeaderLen+senderLen:][:responseNoiseLen:responseNoiseLen],
		First:    b[ResponseLen-MACLen:],
	}
	return m, checkSender(m.Sender)
}

// Cookie is the reply to an Initiation if its sender has yet to show that it receives datagrams at its address. The
// slices of a parsed one lie in the datagram.
type Cookie struct {
	Receiver uint32 // the Sender of the Initiation
	Nonce    []byte // CookieNonceLen bytes
	Sealed   []byte // SealedCookieLen bytes
}

// Append appends the datagram to b.
func (m Cookie) Append(b []byte) []byte {
	var header [HeaderLen]byte
	Header{Type: TypeCookie, Session: m.Receiver}.Put(header[:])
	return append(append(append(b, header[:]...), m.Nonce...), m.Sealed...)
}

// ParseCookie reads the datagram b, which has type TypeCookie. Its errors are those of ParseInitiation.
func ParseCookie(b []byte) (Cookie, error) {
	if err := exactly(b, CookieLen); err != nil {
		return Cookie{}, err
	}
	return Cookie{
		Receiver: binary.BigEndian.Uint32(b) & MaxSession,
		Nonce:    b[HeaderLen:][:CookieNonceLen:CookieNonceLen],
		Sealed:   b[HeaderLen+CookieNonceLen:],
	}, nil
}

func appendStart(b []byte, h Header, sender uint32) []byte {
	var header [HeaderLen]byte
	h.Put(header[:])
	return binary.BigEndian.AppendUint32(append(b, header[:]...), sender)
}

func exactly(b []byte, n int) error {
	switch {
	case len(b) < n:
		return ErrShort
	case len(b) > n:
		return ErrHandshake
	}
	return nil
}

func checkSender(index uint32) error {
	if index == 0 || index > MaxSession {
		return ErrHandshake
	}
	return nil
}
