package transporttest

import (
	"crypto/sha256"
	"crypto/tls"
	"log/slog"
	"net"
	"net/http"
	"sync"

	"github.com/godwit-net/godwit/transports/web"
)

// ServeWeb serves m on the connections of ln, over TLS if there is a certificate.
// What m does not take is not found. stop waits for all requests.
func ServeWeb(ln net.Listener, m web.Mount, cert *tls.Certificate) (stop func()) {
	if cert != nil {
		ln = tls.NewListener(noting{ln, sha256.Sum256(cert.Certificate[0])}, &tls.Config{Certificates: []tls.Certificate{*cert}})
	}
	var running sync.WaitGroup
	s := &http.Server{
		ErrorLog:    slog.NewLogLogger(slog.DiscardHandler, slog.LevelInfo),
		ConnContext: web.WithConn,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			running.Add(1)
			defer running.Done()
			if !m.ServeMount(w, r, web.NewVisit(r)) {
				http.NotFound(w, r)
			}
		}),
	}
	served := make(chan struct{})
	go func() { defer close(served); _ = s.Serve(ln) }() // fails when it is closed
	return func() {
		s.Close()
		m.Close()
		ln.Close()
		<-served
		running.Wait()
	}
}

// noting is a listener whose connections know the certificate.
type noting struct {
	net.Listener
	hash [32]byte
}

func (n noting) Accept() (net.Conn, error) {
	c, err := n.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return noted{c, n.hash}, nil
}

type noted struct {
	net.Conn
	hash [32]byte
}

func (n noted) CertHash() [32]byte { return n.hash }
func (n noted) NetConn() net.Conn  { return n.Conn }
