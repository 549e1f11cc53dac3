package web

import (
	"fmt"
	"net/http"
	"net/url"
)

// A CertError says that the server showed a certificate that is not trusted.
type CertError struct {
	Seen [32]byte // SHA-256 of the certificate shown, in DER
	Err  error    // what the Web PKI has against it; nil when it is not the pinned one
}

// Error names the certificate.
func (e *CertError) Error() string {
	if e.Err != nil {
		return fmt.Sprintf("certificate with SHA-256 %x: %v", e.Seen, e.Err)
	}
	return fmt.Sprintf("certificate with SHA-256 %x is not the pinned one", e.Seen)
}

// Unwrap gives Err.
func (e *CertError) Unwrap() error { return e.Err }

// Interception implements transports.Interception; a certificate names no page.
func (e *CertError) Interception() string { return "" }

// A StatusError says that a request was answered with another status than the
// one it asks for: by a server that does not know the path, or a captive portal.
type StatusError struct {
	Code     int    // HTTP status
	Location string // where a redirect leads, as far as that is a web page; at most 512 bytes
}

// Interception implements transports.Interception.
func (e *StatusError) Interception() string { return e.Location }

// Refusal tells that the status is an error's, such as 502 of a proxy that does not
// know of upgrades. Portals want something else to be looked at, or say 511 (RFC
// 6585, Section 6).
func (e *StatusError) Refusal() bool {
	return e.Code >= 400 && e.Code != http.StatusNetworkAuthenticationRequired
}

// maxLocation bounds what of a redirect is kept and shown, in bytes.
const maxLocation = 512

// location gives the page that a redirect leads to; empty if it is none. It
// comes from whoever sits on the way, and will be shown on a terminal: the URL
// is written anew from its parts, and names and passwords are left out.
func location(header, authority string) string {
	if header == "" || len(header) > maxLocation {
		return ""
	}
	u, err := url.Parse(header)
	if err != nil {
		return ""
	}
	u = (&url.URL{Scheme: "http", Host: authority}).ResolveReference(u)
	u.User = nil
	s := u.String()
	if u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || len(s) > maxLocation {
		return ""
	}
	for _, c := range []byte(s) {
		if c <= ' ' || c >= 0x7f {
			return ""
		}
	}
	return s
}

// Error names the status.
func (e *StatusError) Error() string {
	if e.Location != "" {
		return fmt.Sprintf("HTTP status %d, redirect to %s", e.Code, e.Location)
	}
	return fmt.Sprintf("HTTP status %d", e.Code)
}

// NewStatusError makes one of a response to a request for authority.
func NewStatusError(resp *http.Response, authority string) *StatusError {
	return &StatusError{Code: resp.StatusCode, Location: location(resp.Header.Get("Location"), authority)}
}
