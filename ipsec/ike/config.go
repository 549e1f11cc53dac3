package ike

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/godwit-net/godwit/ipsec/ike/message"
)

// Defaults of Config.
const (
	defaultIKELifetime     = 4 * time.Hour
	defaultChildLifetime   = time.Hour
	defaultRetransmitAfter = 500 * time.Millisecond
	defaultRetransmitFor   = 60 * time.Second
	defaultCookieThreshold = 64
	defaultHalfOpenLimit   = 4096
)

// Timing of ours; RFC 7296 leaves all of it open.
const (
	// maxRetransmit is where the doubling of retransmission intervals ends.
	maxRetransmit = 8 * time.Second
	// halfOpenLifetime is how long a responder waits for IKE_AUTH.
	halfOpenLifetime = 30 * time.Second
	// loginLifetime is how long a responder gives an initiator that logs in by
	// name and password, which somebody may have to type.
	loginLifetime = 2 * time.Minute
	// linger is how long an SA that is gone still answers retransmissions: the
	// answer that ended it may have been lost.
	linger = 30 * time.Second
	// replacedLifetime is how long an SA that the peer replaced waits for the
	// peer to delete it.
	replacedLifetime = 90 * time.Second
	// retryTemporary and retryRefused are the waits after a rekeying that
	// failed; the first after TEMPORARY_FAILURE (RFC 7296, Section 2.25).
	retryTemporary = 3 * time.Second
	retryRefused   = 2 * time.Minute
	// initPatience is how often an IKE_SA_INIT request goes out before an
	// error in an unauthenticated answer is believed.
	initPatience = 3
)

// Bounds of what one peer may make us keep.
const (
	maxChildren = 16 // Child SAs of a Session
	maxIKESAs   = 8  // IKE SAs of a Session, those that are going away included
	maxRestarts = 8  // of IKE_SA_INIT, by COOKIE and INVALID_KE_PAYLOAD
	// maxLoginsOfPlace bounds logins under way from one place, see place.
	maxLoginsOfPlace = 32
	maxInit          = 8192 // bytes of an IKE_SA_INIT request, which is kept for AUTH
)

// nonceLen is the length of our nonces: at least half the key size of every
// PRF (RFC 7296, Section 2.10).
const nonceLen = 32

func (c *Config) prepare() error {
	if c.NewSPI == nil {
		return errors.New("ike: NewSPI is missing")
	}
	if c.Local.Type == 0 || len(c.Local.Data) == 0 || len(c.Local.Data) > 1024 {
		return errors.New("ike: the local identity is missing or too long")
	}
	if c.PrivateKey != nil && len(c.PrivateKey) != ed25519.PrivateKeySize {
		return fmt.Errorf("ike: private key of %d bytes", len(c.PrivateKey))
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if len(c.IKEProposals) == 0 {
		c.IKEProposals = c.PostQuantum.ikeProposals()
	}
	if len(c.ESPProposals) == 0 {
		c.ESPProposals = c.PostQuantum.espProposals()
	}
	if err := checkProposals(c.IKEProposals, message.ProtocolIKE); err != nil {
		return fmt.Errorf("ike: IKE proposals: %w", err)
	}
	if err := checkProposals(c.ESPProposals, message.ProtocolESP); err != nil {
		return fmt.Errorf("ike: ESP proposals: %w", err)
	}
	if err := c.checkCertificates(); err != nil {
		return err
	}
	if len(c.VendorIDs) > 8 {
		return fmt.Errorf("ike: %d vendor IDs", len(c.VendorIDs))
	}
	if c.FragmentSize == 0 {
		c.FragmentSize = defaultFragmentSize
	} else if c.FragmentSize > 0 && c.FragmentSize < minFragmentSize {
		return fmt.Errorf("ike: fragments of %d bytes", c.FragmentSize)
	}
	for _, d := range []struct {
		v   *time.Duration
		def time.Duration
	}{
		{&c.IKELifetime, defaultIKELifetime},
		{&c.ChildLifetime, defaultChildLifetime},
		{&c.RetransmitAfter, defaultRetransmitAfter},
		{&c.RetransmitFor, defaultRetransmitFor},
	} {
		if *d.v == 0 {
			*d.v = d.def
		}
	}
	if c.RetransmitAfter < 0 {
		return errors.New("ike: RetransmitAfter is negative")
	}
	return nil
}

func (c *InitiatorConfig) prepare() error {
	if err := c.Config.prepare(); err != nil {
		return err
	}
	if c.PrivateKey == nil && len(c.PSK) == 0 && len(c.Certificates) == 0 && c.Login == nil {
		return errors.New("ike: neither a private key nor a shared key")
	}
	if c.PeerKey == nil && len(c.PSK) == 0 && len(c.Roots) == 0 && !c.SystemRoots {
		return errors.New("ike: neither the peer's key nor a shared key")
	}
	if c.SystemRoots && c.Remote == nil {
		return errors.New("ike: the system's authorities vouch for anyone, so the peer's identity is needed")
	}
	if l := c.Login; l != nil {
		// "the responder [...] authenticated [...] using public key signatures".
		// RFC 7296, Section 2.16
		if len(c.Roots) == 0 && !c.SystemRoots {
			return errors.New("ike: a password goes to nobody without a certificate, so roots are needed")
		}
		if len(l.Name) == 0 || len(l.Name) > 256 || len(l.Password) == 0 {
			return errors.New("ike: no name of 1 to 256 bytes, or no password")
		}
	}
	if c.PeerKey != nil && len(c.PeerKey) != ed25519.PublicKeySize {
		return fmt.Errorf("ike: peer key of %d bytes", len(c.PeerKey))
	}
	if len(c.TSi) == 0 {
		c.TSi = allSelectors()
	}
	if len(c.TSr) == 0 {
		c.TSr = allSelectors()
	}
	return checkSelectors(c.TSi, c.TSr)
}

func (c *ResponderConfig) prepare() error {
	if err := c.Config.prepare(); err != nil {
		return err
	}
	if c.Lookup == nil {
		return errors.New("ike: Lookup is missing")
	}
	if l := c.Logins; l != nil && (l.Lookup == nil || len(l.Local.Data) == 0 || len(c.Certificates) == 0 && c.GetCertificate == nil) {
		return errors.New("ike: logins need an identity, a certificate and a lookup")
	}
	if len(c.TSi) == 0 {
		c.TSi = allSelectors()
	}
	if len(c.TSr) == 0 {
		c.TSr = allSelectors()
	}
	if c.TokenSecret != nil && len(c.TokenSecret) < 32 {
		return fmt.Errorf("ike: token secret of %d bytes", len(c.TokenSecret))
	}
	if c.CookieThreshold == 0 {
		c.CookieThreshold = defaultCookieThreshold
	}
	if c.HalfOpenLimit <= 0 {
		c.HalfOpenLimit = defaultHalfOpenLimit
	}
	return checkSelectors(c.TSi, c.TSr)
}

func checkSelectors(lists ...[]TrafficSelector) error {
	for _, ts := range lists {
		if len(ts) > message.MaxSelectors {
			return fmt.Errorf("ike: %d traffic selectors", len(ts))
		}
		for _, t := range ts {
			if !t.Start.IsValid() || t.Start.Is4In6() || t.End.Is4In6() || t.Start.BitLen() != t.End.BitLen() ||
				t.Start.Compare(t.End) > 0 || t.StartPort > t.EndPort {
				return fmt.Errorf("ike: traffic selector %v is not a range", t)
			}
		}
	}
	return nil
}
