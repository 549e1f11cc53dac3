package config

import (
	"cmp"
	"net/netip"
	"strconv"
	"strings"
)

// Web is what server.toml says of the port as others see it.
type Web struct {
	// Site is a folder of static files, or the URL of a web server; empty stands
	// for a built-in page.
	Site string
	// RedirectHTTP, the key plain_http, sends those without TLS to the same address
	// with it.
	RedirectHTTP bool
	// TrustedProxies are where reverse proxies may be that are believed.
	TrustedProxies []netip.Prefix
	// CertificateFile and CertificateKeyFile, in PEM, stand in place of the
	// certificate that init made; empty if they do not.
	CertificateFile, CertificateKeyFile string
	// ACMEHosts are the names that a certificate is asked for; none by default.
	ACMEHosts []string
	// ACMEDirectory is the URL of the authority's directory.
	ACMEDirectory string
	// Verify is pin or webpki: what links say the certificate has to be. The
	// default is webpki with ACMEHosts or CertificateFile, and pin otherwise.
	Verify string
	// Stealth answers nobody who does not know the server's keys.
	Stealth bool
}

// DefaultACMEDirectory is that of Let's Encrypt.
const DefaultACMEDirectory = "https://acme-v02.api.letsencrypt.org/directory"

func (t *table) web() (w Web) {
	w.Site = t.text("site", "/var/www/html")
	w.RedirectHTTP = t.oneOf("plain_http", "site", "redirect") == "redirect"
	proxies, _ := t.list("trusted_proxies", "127.0.0.1")
	for _, p := range proxies {
		r, err := ParseAllow(p)
		if err != nil {
			t.fail("trusted_proxies", err.Error(), "write a range such as \"10.0.0.0/8\"")
		}
		w.TrustedProxies = append(w.TrustedProxies, r)
	}
	w.CertificateFile, w.CertificateKeyFile = t.text("certificate_file", "/etc/ssl/vpn.crt"), t.text("certificate_key_file", "/etc/ssl/vpn.key")
	if (w.CertificateFile == "") != (w.CertificateKeyFile == "") {
		t.fail("certificate_file", "a certificate and its key are two files", "give certificate_file and certificate_key_file, or none of them")
	}
	w.ACMEHosts, _ = t.list("acme_hosts", "vpn.example.org")
	for _, h := range w.ACMEHosts {
		if _, err := netip.ParseAddr(h); err == nil || CheckEndpoint(h+":443") != nil || !strings.Contains(h, ".") {
			t.fail("acme_hosts", strconv.Quote(h)+" is not the name of a host on the Internet", "write it as \"vpn.example.org\"")
		}
	}
	if len(w.ACMEHosts) > 0 && w.CertificateFile != "" {
		t.fail("acme_hosts", "two certificates", "give acme_hosts, or certificate_file, or none of them")
	}
	w.ACMEDirectory = cmp.Or(t.text("acme_directory", DefaultACMEDirectory), DefaultACMEDirectory)
	if !strings.HasPrefix(w.ACMEDirectory, "https://") {
		t.fail("acme_directory", "not a URL with https", "write it as \""+DefaultACMEDirectory+"\"")
	}
	public := len(w.ACMEHosts) > 0 || w.CertificateFile != ""
	by := []string{"pin", "webpki"}
	if public {
		by = []string{"webpki", "pin"}
	}
	w.Verify = t.oneOf("verify", by...)
	if w.Verify == "pin" && len(w.ACMEHosts) > 0 {
		t.fail("verify", "a certificate by ACME changes every few weeks, so it cannot be pinned", "write verify = \"webpki\", or remove the line")
	}
	w.Stealth = t.flag("stealth", false)
	return w
}

// checkStealth refuses what would answer strangers all the same.
func (t *table) checkStealth(s *Server) {
	if s.Web.Stealth && s.IKEv2 != nil {
		t.fail("stealth", "IKEv2 clients that are not godwit cannot show that they know the server's keys", "remove stealth, or the table [ikev2]")
	}
}

// lines are those of the keys that do not have their defaults.
func (w *Web) lines() (ls []line) {
	text := func(comment, key, value string) {
		if value != "" {
			ls = append(ls, line{comment, key, value})
		}
	}
	text("What visitors without a key see.", "site", w.Site)
	if w.RedirectHTTP {
		text("", "plain_http", "redirect")
	}
	if len(w.TrustedProxies) > 0 {
		var proxies []string
		for _, p := range w.TrustedProxies {
			proxies = append(proxies, p.String())
		}
		ls = append(ls, line{"Reverse proxies that are believed when they say for whom they come.", "trusted_proxies", proxies})
	}
	text("", "certificate_file", w.CertificateFile)
	text("", "certificate_key_file", w.CertificateKeyFile)
	if len(w.ACMEHosts) > 0 {
		ls = append(ls, line{"", "acme_hosts", w.ACMEHosts})
	}
	if w.ACMEDirectory != DefaultACMEDirectory {
		text("", "acme_directory", w.ACMEDirectory)
	}
	if (w.Verify == "webpki") != (len(w.ACMEHosts) > 0 || w.CertificateFile != "") {
		text("What links say that the certificate has to be.", "verify", w.Verify)
	}
	if w.Stealth {
		ls = append(ls, line{"", "stealth", true})
	}
	return ls
}
