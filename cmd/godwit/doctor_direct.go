package main

import (
	"bufio"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"math"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/godwit-net/godwit/client/nat64"
	"github.com/godwit-net/godwit/config"
	"github.com/godwit-net/godwit/transports"
)

// directPatience bounds each step of the direct look.
const directPatience = 5 * time.Second

// clockTolerance is how much the clocks may differ without a word.
const clockTolerance = 30 * time.Second

// direct is what a look at the server's TCP port shows, without keys.
type direct struct {
	Address string `json:"address,omitempty"` // of the server
	// NAT64 is the prefix by which IPv4 addresses are reached here, where this host has
	// IPv6 alone.
	NAT64        string `json:"nat64,omitempty"`
	ResolveError string `json:"resolve_error,omitempty"`
	RouteError   string `json:"route_error,omitempty"`
	ConnectError string `json:"connect_error,omitempty"`
	TLSError     string `json:"tls_error,omitempty"`
	// Interceptor is who issued a certificate that is not the server's.
	Interceptor string `json:"interceptor,omitempty"`
	// ClockAhead is by how much this host's clock is ahead of the server's, in
	// seconds, by the Date of its web site; nil if that was not seen.
	ClockAhead *float64 `json:"clock_ahead_s,omitempty"`
	// FastOpen tells whether the server took data with the first packet of TCP; nil
	// if that could not be seen.
	FastOpen *bool `json:"fast_open,omitempty"`
}

// probeDirect looks at the server's port step by step and stops at the first that
// fails. Behind an upstream proxy there is nothing to be seen directly.
func probeDirect(ctx context.Context, d *config.ClientDir, proxied bool) (r direct) {
	if proxied {
		return r
	}
	step := func() (context.Context, context.CancelFunc) { return context.WithTimeout(ctx, directPatience) }
	host, portText, _ := net.SplitHostPort(d.Config.Server) // checked by package config
	port, _ := strconv.ParseUint(portText, 10, 16)
	out := outsideOf(d)
	rctx, cancel := step()
	addrs, err := out.resolver.LookupNetIP(rctx, "ip", host)
	cancel()
	if err != nil {
		r.ResolveError = lastCause(err)
		return r
	}
	local, remote, err := out.way(addrs)
	if err != nil {
		nctx, cancel := step()
		prefixes, _ := nat64.Discover(nctx, out.lookup) // without any the error is that there is no route
		cancel()
		var none error
		if local, remote, none = out.way(nat64.Below(prefixes, addrs)); none != nil {
			r.RouteError = lastCause(err)
			return r
		}
		for _, p := range prefixes {
			if p.Contains(remote) {
				r.NAT64 = p.String()
			}
		}
	}
	at := netip.AddrPortFrom(remote, uint16(port))
	r.Address = at.String()

	cctx, cancel := step()
	defer cancel()
	plain, err := out.network().DialTCP(cctx, local, at)
	if err != nil {
		r.ConnectError = lastCause(err)
		return r
	}
	plain.Close()
	if d.Config.NoTLS {
		return r
	}
	tctx, cancel := step()
	defer cancel()
	conn, _, err := transports.DialEarly(tctx, out.network(), local, at)
	if err != nil {
		r.ConnectError = lastCause(err)
		return r
	}
	defer conn.Close()
	stop := context.AfterFunc(tctx, func() { conn.Close() })
	defer stop()
	r.lookInside(conn, d, host)
	return r
}

// lookInside looks at the certificate, the clock and what became of the SYN's data.
func (r *direct) lookInside(conn net.Conn, d *config.ClientDir, host string) {
	name := host
	if d.Config.ServerName != "" {
		name = d.Config.ServerName
	}
	// The certificate is compared below; nothing secret is sent.
	secure := tls.Client(conn, &tls.Config{ServerName: name, InsecureSkipVerify: true})
	if err := secure.Handshake(); err != nil {
		r.TLSError = lastCause(err)
		return
	}
	if e, ok := conn.(interface{ EarlyTaken() bool }); ok {
		taken := e.EarlyTaken()
		r.FastOpen = &taken
	}
	chain := secure.ConnectionState().PeerCertificates
	cert := chain[0]
	if d.Config.Verify == "webpki" {
		o := x509.VerifyOptions{DNSName: name, Intermediates: x509.NewCertPool()}
		for _, c := range chain[1:] {
			o.Intermediates.AddCert(c)
		}
		if _, err := cert.Verify(o); err != nil {
			r.Interceptor = cert.Issuer.String()
			r.TLSError = "the certificate is not trusted: " + lastCause(err)
		}
	}
	if d.Config.Verify != "webpki" && sha256.Sum256(cert.Raw) != d.Config.CertHash {
		r.Interceptor = cert.Issuer.String()
		r.TLSError = "the certificate is not the server's: it was issued by " + cert.Issuer.String()
	}
	if strings.Contains(name, ":") {
		name = "[" + name + "]"
	}
	req, err := http.NewRequest(http.MethodHead, "https://"+name+"/", nil)
	if err != nil || req.Write(secure) != nil {
		return
	}
	resp, err := http.ReadResponse(bufio.NewReader(secure), req)
	if err != nil {
		return
	}
	resp.Body.Close()
	if date, err := http.ParseTime(resp.Header.Get("Date")); err == nil && r.Interceptor == "" {
		ahead := math.Round(time.Since(date).Seconds())
		r.ClockAhead = &ahead
	}
}

// remarks are what a person should know besides the table.
func (r *direct) remarks() (lines []string) {
	if r.NAT64 != "" {
		lines = append(lines, "This network has IPv6 alone; its NAT64 leads to the server's IPv4 address, below "+r.NAT64+".")
	}
	if r.Interceptor != "" {
		lines = append(lines, "TLS is intercepted here: "+r.Interceptor)
	}
	if r.ClockAhead != nil {
		if off := time.Duration(*r.ClockAhead) * time.Second; off.Abs() > clockTolerance {
			lines = append(lines, fmt.Sprintf("This clock and the server's differ by %v, by the Date of its web site.", off.Abs()))
		}
	}
	if r.FastOpen != nil && !*r.FastOpen && r.Interceptor == "" {
		lines = append(lines, "TCP connections cannot begin with data: set net.ipv4.tcp_fastopen = 3 at the server, or something on the way takes the data out.")
	}
	return lines
}
