package portmux

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"net"
	"net/netip"
	"sync"
	"time"
)

// A Conn is a connection whose first bytes are known already.
//
// To whoever serves it, it looks as if it had been accepted when the visitor
// came: the first read deadlines are earlier by the time that went by before it
// was handed over, so that a visitor who says nothing, or half a word, is left at
// the same moment as by a server without a Mux.
type Conn struct {
	net.Conn
	seen   []byte // nil when they have been read
	kind   kind
	begin  time.Time
	waited time.Duration

	// What a reverse proxy has said: whom it comes for, and where that one has
	// connected to. Invalid without one.
	source, destination netip.AddrPort

	mu      sync.Mutex
	written bool
	shown   [sha256.Size]byte // of the certificate
}

// Read gives the known bytes first. Those that are of no use alone come with what
// has come since, as if they had not been read apart.
func (c *Conn) Read(b []byte) (int, error) {
	if len(c.seen) == 0 {
		return c.Conn.Read(b)
	}
	n := copy(b, c.seen)
	if c.seen = c.seen[n:]; len(c.seen) > 0 {
		return n, nil
	}
	c.seen = nil
	if n == len(b) || !c.kind.needsMore(b[:n]) {
		return n, nil
	}
	more, _ := c.Conn.Read(b[n:]) // it fails again
	return n + more, nil
}

// needsMore tells whether nothing can come of what was read without more.
func (k kind) needsMore(b []byte) bool {
	switch k {
	case kindTLS:
		return len(b) < 5 // the header of a record, RFC 8446, Section 5.1
	case kindHTTP:
		return bytes.IndexByte(b, '\n') < 0
	}
	return false
}

// Write implements net.Conn.
func (c *Conn) Write(b []byte) (int, error) {
	c.mu.Lock()
	c.written = true
	c.mu.Unlock()
	return c.Conn.Write(b)
}

// SetReadDeadline implements net.Conn. Until something was written, the time that
// the visitor has waited is counted too.
func (c *Conn) SetReadDeadline(t time.Time) error { return c.Conn.SetReadDeadline(c.counted(t)) }

// SetDeadline is SetReadDeadline and SetWriteDeadline.
func (c *Conn) SetDeadline(t time.Time) error {
	if err := c.SetReadDeadline(t); err != nil {
		return err
	}
	return c.SetWriteDeadline(t)
}

func (c *Conn) counted(t time.Time) time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	if t.IsZero() || c.written {
		return t
	}
	return t.Add(-c.waited)
}

// CloseWrite ends the way out alone, which is how a web server has its last
// answer arrive although the visitor still sends.
func (c *Conn) CloseWrite() error {
	if w, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return w.CloseWrite()
	}
	return nil
}

// RemoteAddr is the visitor's address, behind a trusted reverse proxy too.
func (c *Conn) RemoteAddr() net.Addr {
	if c.source.IsValid() {
		return net.TCPAddrFromAddrPort(c.source)
	}
	return c.Conn.RemoteAddr()
}

// LocalAddr is where the visitor has connected to: a trusted reverse proxy's
// address if it came by one.
func (c *Conn) LocalAddr() net.Addr {
	if c.destination.IsValid() {
		return net.TCPAddrFromAddrPort(c.destination)
	}
	return c.Conn.LocalAddr()
}

// NetConn gives the connection beneath.
func (c *Conn) NetConn() net.Conn { return c.Conn }

// noting has the configuration note on each Conn which certificate was shown.
func noting(config *tls.Config) *tls.Config {
	if config == nil {
		return nil
	}
	config = config.Clone()
	get := config.GetCertificate
	if get == nil {
		own := config.Certificates
		config.Certificates = nil // they would go before GetCertificate
		get = func(h *tls.ClientHelloInfo) (*tls.Certificate, error) {
			for i := range own {
				if h.SupportsCertificate(&own[i]) == nil {
					return &own[i], nil
				}
			}
			if len(own) == 0 {
				return nil, nil
			}
			return &own[0], nil
		}
	}
	config.GetCertificate = func(h *tls.ClientHelloInfo) (*tls.Certificate, error) {
		cert, err := get(h)
		if c, ok := h.Conn.(*Conn); ok && err == nil && cert != nil && len(cert.Certificate) > 0 {
			sum := sha256.Sum256(cert.Certificate[0])
			c.mu.Lock()
			c.shown = sum
			c.mu.Unlock()
		}
		return cert, err
	}
	return config
}

// CertHash is the SHA-256 of the certificate, in DER, that the visitor was shown;
// zero without TLS and before its handshake.
func (c *Conn) CertHash() [sha256.Size]byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.shown
}
