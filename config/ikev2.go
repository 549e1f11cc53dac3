package config

import (
	"bufio"
	"bytes"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
)

// IKEv2 is the table [ikev2] of server.toml: what the server is to IKEv2 clients
// that are not godwit.
type IKEv2 struct {
	// Identity is what the server calls itself; the endpoint's host by default.
	Identity string
	// Listen is where it is found, besides Server.Listen; ports 500 and 4500
	// of all addresses by default. Port 500 takes IKE alone.
	Listen []netip.AddrPort
	// DNS is handed out; none means the server's own inner address.
	DNS []netip.Addr
	// Certificates are the server's, with which users can log in by password,
	// and the authorities of users' ones; none means shared keys alone.
	Certificates CertificateFiles
}

// IKEPort is the port where IKE is not encapsulated, RFC 7296, Section 2.
const IKEPort = 500

// ikev2 reads the table [ikev2]; nil if there is none.
func (t *table) ikev2(server *Server) *IKEv2 {
	s := t.sub("ikev2")
	if s == nil {
		return nil
	}
	host, _, _ := net.SplitHostPort(server.Endpoint)
	k := &IKEv2{Identity: s.text("identity", "vpn.example.org")}
	if k.Identity == "" {
		k.Identity = host
	}
	listen, ok := s.list("listen", "[::]:4500")
	if !ok {
		listen = []string{"[::]:500", "[::]:4500"}
	}
	for _, l := range listen {
		ap, err := netip.ParseAddrPort(l)
		if err != nil {
			s.fail("listen", strconv.Quote(l)+" is not an address and a port", "write them as [\"[::]:500\", \"[::]:4500\"]")
		}
		k.Listen = append(k.Listen, ap)
	}
	dns, _ := s.list("dns", "9.9.9.9")
	for _, d := range dns {
		a, err := netip.ParseAddr(d)
		if err != nil || a.Zone() != "" || len(dns) > 4 {
			s.fail("dns", strconv.Quote(d)+" is not an address, or there are more than four", "write them as [\"9.9.9.9\"]")
		}
		k.DNS = append(k.DNS, a)
	}
	k.Certificates = s.certificateFiles()
	if k.Certificates.CA != "" && k.Certificates.Certificate == "" {
		s.fail("ca_file", "users' certificates are answered by one of the server", "give certificate_file and certificate_key_file too, or remove ca_file")
	}
	t.join(s)
	return k
}

// SystemResolver is the first name server that this system uses, 127.0.0.1 if
// it does not tell.
func SystemResolver() netip.Addr {
	b, err := os.ReadFile("/etc/resolv.conf")
	if err == nil {
		for s := bufio.NewScanner(bytes.NewReader(b)); s.Scan(); {
			f := strings.Fields(s.Text())
			if len(f) < 2 || f[0] != "nameserver" {
				continue
			}
			if a, err := netip.ParseAddr(f[1]); err == nil {
				return a
			}
		}
	}
	return netip.AddrFrom4([4]byte{127, 0, 0, 1})
}
