// Package signer signs the identities of Kubernetes nodes: it decides about CertificateSigningRequests of the signer
// weft.network/node.
//
//	signer.go  watches requests, approves or denies them, and signs
//	judge.go   which requests are signed
//	folder.go  the CA, and nodes that get no certificate
//	issued.go  which keys have certificates, in a ConfigMap
//
// It listens on no port, and trusts what the API server writes about the sender of a request: its account, node and UID of the node.
package signer

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"

	"weft/internal/identity"
	"weft/internal/kube/csr"
)

// Bounds of the validity of certificates.
const (
	DefaultDuration = 7 * 24 * time.Hour
	MinDuration     = time.Hour
	MaxDuration     = 365 * 24 * time.Hour
)

// retryPeriod is the time until requests that could not be decided are tried again.
const retryPeriod = 10 * time.Second

// Config is the configuration of a Signer. Fields must not change after New.
type Config struct {
	API kubernetes.Interface
	// Folder has the CA.
	Folder Folder
	// Namespace is that of weft, Account the name of its ServiceAccount there.
	Namespace, Account string
	// Duration is how long a certificate is valid for which the request asks no expirationSeconds, and at most.
	Duration time.Duration
	Log      *slog.Logger
}

// Signer decides about requests; see the package comment.
type Signer struct {
	cfg     Config
	issued  *issued
	changed chan struct{} // holds one signal
}

// New returns an idle signer. Errors name the field of cfg that is wrong.
func New(cfg Config) (*Signer, error) {
	if cfg.Duration < MinDuration || cfg.Duration > MaxDuration {
		return nil, fmt.Errorf("signer: duration %v is not within %v and %v", cfg.Duration, MinDuration, MaxDuration)
	}
	if cfg.Namespace == "" || cfg.Account == "" {
		return nil, errors.New("signer: namespace or account is empty")
	}
	if _, err := cfg.Folder.load(); err != nil {
		return nil, err
	}
	return &Signer{cfg: cfg, issued: &issued{api: cfg.API.CoreV1().ConfigMaps(cfg.Namespace)}, changed: make(chan struct{}, 1)}, nil
}

// Run decides about requests until ctx ends, and joins all its goroutines. Requests that fail are tried again.
func (s *Signer) Run(ctx context.Context) error {
	factory := informers.NewSharedInformerFactoryWithOptions(s.cfg.API, 0, informers.WithTweakListOptions(func(o *metav1.ListOptions) {
		o.FieldSelector = fields.OneTermEqualSelector("spec.signerName", csr.SignerName).String()
	}))
	requests := factory.Certificates().V1().CertificateSigningRequests()
	if _, err := requests.Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: func(any) { s.notify() }, UpdateFunc: func(any, any) { s.notify() },
	}); err != nil {
		return fmt.Errorf("signer: watching: %w", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer factory.Shutdown()
	defer cancel()
	factory.Start(ctx.Done())
	if !cache.WaitForCacheSync(ctx.Done(), requests.Informer().HasSynced) {
		return ctx.Err()
	}
	tick := time.NewTicker(retryPeriod)
	defer tick.Stop()
	for {
		list, err := requests.Lister().List(labels.Everything())
		if err != nil {
			return fmt.Errorf("signer: %w", err)
		}
		for _, c := range list {
			if err := s.decide(ctx, c, time.Now()); err != nil && ctx.Err() == nil {
				s.cfg.Log.Warn("deciding about a request failed, trying again", "request", c.Name, "err", err)
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-s.changed:
		case <-tick.C:
		}
	}
}

func (s *Signer) notify() {
	select {
	case s.changed <- struct{}{}:
	default:
	}
}

// decide denies, or approves and signs, a request that is not decided yet.
func (s *Signer) decide(ctx context.Context, c *certificatesv1.CertificateSigningRequest, now time.Time) error {
	if c.Spec.SignerName != csr.SignerName || len(c.Status.Certificate) > 0 ||
		has(c, certificatesv1.CertificateDenied) || has(c, certificatesv1.CertificateFailed) {
		return nil
	}
	authority, err := s.cfg.Folder.load()
	if err != nil {
		return err
	}
	request, refused := s.judge(c, authority)
	if refused == nil {
		refused, err = s.issued.add(ctx, record{
			node: request.Name, uid: extra(c, uidKey), id: request.ID(), until: now.Add(s.duration(c)),
		}, now)
		if err != nil {
			return err
		}
	}
	if refused != nil {
		return s.refuse(ctx, c.DeepCopy(), *refused, now)
	}
	return s.sign(ctx, c.DeepCopy(), authority, request, now)
}

// refuse denies a request. One that a person has approved cannot be denied any more, and fails.
func (s *Signer) refuse(ctx context.Context, c *certificatesv1.CertificateSigningRequest, r refusal, now time.Time) error {
	requests := s.cfg.API.CertificatesV1().CertificateSigningRequests()
	var err error
	if has(c, certificatesv1.CertificateApproved) {
		add(c, certificatesv1.CertificateFailed, r, now)
		_, err = requests.UpdateStatus(ctx, c, metav1.UpdateOptions{})
	} else {
		add(c, certificatesv1.CertificateDenied, r, now)
		_, err = requests.UpdateApproval(ctx, c.Name, c, metav1.UpdateOptions{})
	}
	if err != nil {
		return fmt.Errorf("signer: denying: %w", err)
	}
	s.cfg.Log.Warn("request denied", "request", c.Name, "user", c.Spec.Username, "reason", r.reason, "message", r.message)
	return nil
}

// sign approves a request unless a person has done so, and signs it.
func (s *Signer) sign(
	ctx context.Context, c *certificatesv1.CertificateSigningRequest, authority authority, request identity.Request, now time.Time,
) error {
	certificate, err := authority.ca.Sign(request.Public, identity.Terms{
		NotBefore: now, NotAfter: now.Add(s.duration(c)), Name: request.Name,
	})
	if err != nil {
		return err
	}
	answer, err := csr.EncodeCertificate(c.Spec.Request, certificate)
	if err != nil {
		return err
	}
	requests := s.cfg.API.CertificatesV1().CertificateSigningRequests()
	if !has(c, certificatesv1.CertificateApproved) {
		add(c, certificatesv1.CertificateApproved, refusal{"OwnNode", "weft requests it for the node on which it runs"}, now)
		if c, err = requests.UpdateApproval(ctx, c.Name, c, metav1.UpdateOptions{}); err != nil {
			return fmt.Errorf("signer: approving: %w", err)
		}
	}
	c.Status.Certificate = answer
	if _, err := requests.UpdateStatus(ctx, c, metav1.UpdateOptions{}); err != nil {
		return fmt.Errorf("signer: answering: %w", err)
	}
	s.cfg.Log.Info("certificate signed", "request", c.Name, "node", request.Name, "peer", request.ID(), "until", certificate.NotAfter)
	return nil
}

// duration returns how long the certificate for a request is valid.
func (s *Signer) duration(c *certificatesv1.CertificateSigningRequest) time.Duration {
	if c.Spec.ExpirationSeconds == nil {
		return s.cfg.Duration
	}
	return min(max(time.Duration(*c.Spec.ExpirationSeconds)*time.Second, MinDuration), s.cfg.Duration)
}

func has(c *certificatesv1.CertificateSigningRequest, kind certificatesv1.RequestConditionType) bool {
	for _, condition := range c.Status.Conditions {
		if condition.Type == kind {
			return true
		}
	}
	return false
}

func add(c *certificatesv1.CertificateSigningRequest, kind certificatesv1.RequestConditionType, r refusal, now time.Time) {
	c.Status.Conditions = append(c.Status.Conditions, certificatesv1.CertificateSigningRequestCondition{
		Type: kind, Status: corev1.ConditionTrue, Reason: r.reason, Message: r.message, LastUpdateTime: metav1.NewTime(now),
	})
}
