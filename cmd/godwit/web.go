package main

import (
	"io"
	"log/slog"
	"net/http"
	"path/filepath"
	"strings"

	"github.com/godwit-net/godwit/config"
	"github.com/godwit-net/godwit/server"
	website "github.com/godwit-net/godwit/server/site"
)

// acmeCache is the folder, in the server's, of certificates by ACME.
const acmeCache = "acme"

// setWeb sets what visitors without a key see. The closer is for when the server
// has ended.
func setWeb(sc *server.Config, d *config.ServerDir, logger *slog.Logger) (io.Closer, error) {
	w := d.Config.Web
	sc.Stealth = w.Stealth
	sc.RedirectHTTP, sc.TrustedProxies = w.RedirectHTTP, w.TrustedProxies
	if cert, key, ok := d.CertificateFiles(); ok {
		f, err := website.NewFiles(cert, key, logger)
		if err != nil {
			return nil, &config.Error{What: lastCause(err), Where: d.Where("certificate_file"), Do: "give the certificate and its key in PEM", Err: err}
		}
		sc.GetCertificate = f.GetCertificate
	}
	if len(w.ACMEHosts) > 0 {
		a, err := website.NewACME(w.ACMEHosts, w.ACMEDirectory, filepath.Join(d.Path(), acmeCache), logger)
		if err != nil {
			return nil, &config.Error{What: lastCause(err), Where: d.Where("acme_hosts"), Do: "make the folder " + filepath.Join(d.Path(), acmeCache) + " writable", Err: err}
		}
		sc.GetCertificate, sc.TLSProtocols = a.GetCertificate, []string{website.ACMEProtocol}
	}
	content, closer, err := openSite(d, logger)
	sc.Site = content
	return closer, err
}

// openSite opens what the setting site names; nil if it names nothing.
func openSite(d *config.ServerDir, logger *slog.Logger) (http.Handler, io.Closer, error) {
	what := d.Config.Web.Site
	if what == "" {
		return nil, io.NopCloser(nil), nil
	}
	if !strings.Contains(what, "://") && !filepath.IsAbs(what) {
		what = filepath.Join(d.Path(), what)
	}
	content, closer, err := website.Open(what, logger)
	if err != nil {
		return nil, nil, &config.Error{What: err.Error(), Where: d.Where("site"), Do: "name a folder, or a web server such as http://127.0.0.1:8080", Err: err}
	}
	return content, closer, nil
}
