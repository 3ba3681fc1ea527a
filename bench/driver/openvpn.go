package driver

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"time"

	"weft/bench/lab"
	"weft/internal/nettest"
)

// openvpn is OpenVPN point to point over UDP, from the distribution's package.
type openvpn struct {
	program, version string
}

// Settings of OpenVPN.
const (
	openvpnMTU = 1500 // the default; OpenVPN fits inner TCP into the underlay by clamping the MSS
	openvpnIf  = "ovpn0"
)

// Name implements Driver.
func (*openvpn) Name() string { return "openvpn" }

// Summary implements Driver.
func (*openvpn) Summary() string {
	return "OpenVPN point to point, a layer 3 tunnel in userspace, AES-256-GCM"
}

// Prepare implements Driver.
func (v *openvpn) Prepare(ctx context.Context, t *Tools) (err error) {
	if v.program, err = t.systemTool(ctx, "openvpn", "openvpn"); err != nil {
		return err
	}
	v.version = strings.Join(strings.Fields(firstLine(ctx, v.program, "--version"))[:2], " ")
	return nil
}

// Up implements Driver.
func (v *openvpn) Up(ctx context.Context, l *lab.Lab) (*Overlay, error) {
	o := &Overlay{}
	if len(l.Ends) != 2 {
		return o, fmt.Errorf("driver: OpenVPN point to point: %w: it supports two ends only", ErrUnavailable)
	}
	prints := make([]string, 2)
	for i, h := range l.Ends {
		var err error
		if prints[i], err = certificate(h); err != nil {
			return o, err
		}
	}
	for i, h := range l.Ends {
		argv := append([]string{v.program}, v.arguments(l, i, prints[1-i])...)
		p, err := h.Start(nettest.ProcessConfig{Name: "openvpn", Argv: argv})
		if err != nil {
			return o, err
		}
		o.Daemons = append(o.Daemons, p)
		o.Ends = append(o.Ends, lab.End{Space: h.Space, Addr: podAddr(i)})
	}
	o.Facts.Version, o.Facts.MTU, o.Facts.Ends = v.version, openvpnMTU, betweenHosts
	o.Facts.Encrypted, o.Facts.Cipher = true, "aes-256-gcm"
	o.Facts.Tuned = []string{"--fast-io", "without its kernel module (DCO)"}
	return o, nil
}

// arguments returns the arguments of the i-th end. The ends authenticate each other by the fingerprints of their
// certificates.
func (*openvpn) arguments(l *lab.Lab, i int, peerPrint string) []string {
	h, role := l.Ends[i], []string{"--tls-server", "--dh", "none"}
	if i == 1 {
		role = []string{"--tls-client"}
	}
	return append(role,
		"--dev", openvpnIf, "--dev-type", "tun", "--proto", "udp4", "--disable-dco", "--fast-io",
		"--local", h.Addr().String(), "--remote", l.Ends[1-i].Addr().String(),
		"--ifconfig", podAddr(i).String(), podAddr(1-i).String(),
		"--cert", filepath.Join(h.Dir(), "crt.pem"), "--key", filepath.Join(h.Dir(), "key.pem"),
		"--peer-fingerprint", peerPrint, "--data-ciphers", "AES-256-GCM", "--verb", "1")
}

// certificate writes a key and a self-signed certificate into the host's folder and returns the certificate's fingerprint.
func certificate(h *nettest.Host) (string, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return "", fmt.Errorf("driver: %w", err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: h.Label()},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return "", fmt.Errorf("driver: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return "", fmt.Errorf("driver: %w", err)
	}
	for name, block := range map[string]*pem.Block{
		"crt.pem": {Type: "CERTIFICATE", Bytes: cert}, "key.pem": {Type: "PRIVATE KEY", Bytes: der},
	} {
		if err := os.WriteFile(filepath.Join(h.Dir(), name), pem.EncodeToMemory(block), 0o600); err != nil {
			return "", fmt.Errorf("driver: %w", err)
		}
	}
	sum := sha256.Sum256(cert)
	return strings.ReplaceAll(fmt.Sprintf("% X", sum[:]), " ", ":"), nil
}
