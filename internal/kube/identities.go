package kube

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"log/slog"
	"math"
	"os"
	"slices"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"weft/internal/hint"
	"weft/internal/identity"
	"weft/internal/kube/csr"
)

// Times of renewals.
const (
	renewPeriod  = time.Minute      // between two looks at the certificate
	renewTimeout = 5 * time.Minute  // for one request
	renewRetry   = 30 * time.Minute // after a request that failed: each leaves an object at the API server for a day
)

// requestSuffix follows the path of the identity file in the path of the file with the request, which has the node's public key.
const requestSuffix = ".request"

// Identities gets the signed identity of a node from the signer weft.network/node, and renews it.
type Identities struct {
	API  kubernetes.Interface
	Node string // the Node object, and the name in the certificate
	// File is the path of the daemon's identity file.
	File string
	// CAFile is the path of a file with the CAs that nodes trust, from a ConfigMap. Certificates of other CAs are refused.
	CAFile string
	Log    *slog.Logger
}

// Ensure writes the identity file for a request, unless its certificate is not due for renewal yet. It waits for the signature until
// ctx ends. If there is none, it keeps a certificate that is still valid, or returns a *hint.Error.
func (i Identities) Ensure(ctx context.Context, r identity.Request, now time.Time) error {
	cas, err := i.cas()
	if err != nil {
		return err
	}
	if _, err := replaceFile(i.File+requestSuffix, []byte(r.String()+"\n"), 0o600); err != nil {
		return err
	}
	current, valid := i.current(cas, r, now)
	if valid && now.Before(i.dueAt(current, cas, r)) {
		return i.write(cas, current)
	}
	c, err := i.obtain(ctx, cas, r, now)
	switch {
	case err != nil && valid:
		i.Log.Warn("no new certificate: the node starts with the one that it has", "until", current.NotAfter, "err", err)
		return i.write(cas, current)
	case err != nil:
		return err
	}
	return i.write(cas, c)
}

// Forget removes the files of an identity that the node has no more.
func (i Identities) Forget() error {
	for _, path := range []string{i.File + requestSuffix, i.File} {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("kube: %w", err)
		}
	}
	return nil
}

// run renews the certificate until ctx ends. A node without a request has no identity, and nothing to renew.
func (i Identities) run(ctx context.Context) error {
	var next time.Time
	return every(ctx, renewPeriod, func() {
		if now := time.Now(); !now.Before(next) && !i.renew(ctx, now) {
			next = time.Now().Add(renewRetry)
		}
	})
}

// renew requests a certificate if one is due, and reports false if the node has not got a better one.
func (i Identities) renew(ctx context.Context, now time.Time) (ok bool) {
	text, err := os.ReadFile(i.File + requestSuffix)
	if errors.Is(err, fs.ErrNotExist) {
		return true
	}
	var r identity.Request
	if err == nil {
		r, err = identity.ParseRequest(string(text))
	}
	var cas []identity.CAKey
	if err == nil {
		cas, err = i.cas()
	}
	if err == nil {
		if current, valid := i.current(cas, r, now); valid && now.Before(i.dueAt(current, cas, r)) {
			return true
		}
		err = i.obtainAndWrite(ctx, cas, r, now)
	}
	if err != nil && ctx.Err() == nil {
		i.Log.Warn("the certificate of this node was not renewed", "retry", renewRetry, "err", err)
	}
	return false // also after success: a certificate of another CA than the first may be due at once
}

func (i Identities) obtainAndWrite(ctx context.Context, cas []identity.CAKey, r identity.Request, now time.Time) error {
	ctx, cancel := context.WithTimeout(ctx, renewTimeout)
	defer cancel()
	c, err := i.obtain(ctx, cas, r, now)
	if err != nil {
		return err
	}
	i.Log.Info("certificate renewed", "until", c.NotAfter)
	return i.write(cas, c)
}

// cas returns the CAs that nodes trust. Errors are *hint.Error.
func (i Identities) cas() ([]identity.CAKey, error) {
	text, err := os.ReadFile(i.CAFile)
	var cas []identity.CAKey
	if err == nil {
		cas, err = identity.ParseCAs(string(text))
	}
	if err != nil {
		return nil, hint.Refuse(i.CAFile,
			"Create the ConfigMap (kubectl -n kube-system create configmap weft-ca --from-file=ca.pub=ca/ca.pub).", "%w", err)
	}
	return cas, nil
}

// current returns the certificate of the node, and whether the other nodes accept it.
func (i Identities) current(cas []identity.CAKey, r identity.Request, now time.Time) (c identity.Certificate, valid bool) {
	text, err := os.ReadFile(i.File)
	if err != nil {
		return c, false
	}
	f, err := identity.ParseFile(string(text))
	if err != nil {
		return c, false
	}
	return f.Certificate, accepted(f.Certificate, cas, r, now) == nil
}

// accepted returns an error if a node that trusts some CAs refuses a certificate for a request.
func accepted(c identity.Certificate, cas []identity.CAKey, r identity.Request, now time.Time) error {
	if e := identity.NewTrust(cas).CheckParsed(c, identity.Holder{Public: r.Public, Name: r.Name, Named: true}, now); e != nil {
		return e
	}
	return nil
}

// dueAt returns when a certificate is to be renewed: before a third of its life is left, when the daemon would warn. Nodes that
// started together renew at different times. It is due at once if it is not of the first CA: the CA is being replaced.
func (i Identities) dueAt(c identity.Certificate, cas []identity.CAKey, r identity.Request) time.Time {
	if accepted(c, cas[:1], r, c.NotBefore) != nil {
		return time.Time{}
	}
	h := fnv.New32a()
	_, _ = h.Write([]byte(i.Node))
	spread := float64(c.NotAfter.Sub(c.NotBefore)) / 6
	return c.RenewAt().Add(-time.Duration(spread * (0.1 + 0.9*float64(h.Sum32())/math.MaxUint32)))
}

// obtain requests a certificate and waits for it until ctx ends. Errors are *hint.Error.
func (i Identities) obtain(ctx context.Context, cas []identity.CAKey, r identity.Request, now time.Time) (identity.Certificate, error) {
	text, err := csr.EncodeRequest(r)
	if err != nil {
		return identity.Certificate{}, err
	}
	name, err := i.create(ctx, text)
	if err != nil {
		return identity.Certificate{}, hint.New(hint.Refused,
			"Apply deploy/kubernetes-identities.yaml (Helm: --set identities.enabled=true), which allows weft to request certificates.",
			"requesting a certificate: %w", err)
	}
	answer, err := i.wait(ctx, name)
	if err != nil {
		return identity.Certificate{}, err
	}
	c, err := csr.ParseCertificate(answer)
	if err == nil {
		err = accepted(c, cas, r, now)
	}
	if err != nil {
		return identity.Certificate{}, hint.New(hint.Refused, "Check that the ConfigMap weft-ca has the CA of the Secret weft-ca, that the "+
			"clocks agree, and restart the signer (kubectl -n kube-system rollout restart deployment weft-signer).",
			"the certificate in CertificateSigningRequest %s is not accepted: %w", name, err)
	}
	return c, nil
}

// create makes a request at the API server, which it tries until ctx ends, and returns its name.
func (i Identities) create(ctx context.Context, text []byte) (name string, err error) {
	for {
		c, err := i.API.CertificatesV1().CertificateSigningRequests().Create(ctx, &certificatesv1.CertificateSigningRequest{
			ObjectMeta: metav1.ObjectMeta{GenerateName: "weft-" + i.Node + "-"},
			Spec: certificatesv1.CertificateSigningRequestSpec{
				Request: text, SignerName: csr.SignerName, Usages: []certificatesv1.KeyUsage{certificatesv1.UsageKeyAgreement},
			},
		}, metav1.CreateOptions{})
		if err == nil {
			return c.Name, nil
		}
		i.Log.Info("requesting a certificate failed, trying again", "err", err)
		if pause(ctx, installPeriod) != nil {
			return "", err
		}
	}
}

// wait returns the answer to a request. Errors are *hint.Error.
func (i Identities) wait(ctx context.Context, name string) ([]byte, error) {
	const look = "Look at the signer: kubectl get csr, kubectl -n kube-system get deployment weft-signer, " +
		"kubectl -n kube-system logs deployment/weft-signer."
	for {
		c, err := i.API.CertificatesV1().CertificateSigningRequests().Get(ctx, name, metav1.GetOptions{})
		if err == nil && len(c.Status.Certificate) > 0 {
			return c.Status.Certificate, nil
		}
		if err == nil {
			if n := slices.IndexFunc(c.Status.Conditions, refuses); n >= 0 {
				condition := c.Status.Conditions[n]
				return nil, hint.New(hint.Refused, "Fix what the message names, and start the pod again. "+look,
					"CertificateSigningRequest %s: %s: %s: %s", name, condition.Type, condition.Reason, condition.Message)
			}
			err = errors.New("it is not signed yet")
		}
		if pause(ctx, installPeriod) != nil {
			return nil, hint.New(hint.Timeout, look, "CertificateSigningRequest %s: %w", name, err)
		}
	}
}

func refuses(c certificatesv1.CertificateSigningRequestCondition) bool {
	return c.Type == certificatesv1.CertificateDenied || c.Type == certificatesv1.CertificateFailed
}

// write replaces the identity file.
func (i Identities) write(cas []identity.CAKey, c identity.Certificate) error {
	_, err := replaceFile(i.File, []byte(identity.File{CAs: cas, Certificate: c}.String()), 0o600)
	return err
}
