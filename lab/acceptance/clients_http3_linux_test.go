//go:build netns

package acceptance

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"github.com/godwit-net/godwit/lab/netns"
)

// HTTP/3 goes over UDP ASSOCIATE: 20 MB down and 5 MB up on one QUIC connection,
// with a move in the midst of the download.
func TestHTTP3(t *testing.T) {
	// The library would print that a connection of ours takes no buffer sizes.
	t.Setenv("QUIC_GO_DISABLE_RECEIVE_BUFFER_WARNING", "true")
	d := startDesk(t)
	id := newIdentity(t)
	data := blob(t, 20*mega)
	middle := newPause(t, 10*mega)
	mux := http.NewServeMux()
	mux.Handle("GET /data", middle.handler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(data) })))
	mux.HandleFunc("POST /sum", func(w http.ResponseWriter, r *http.Request) {
		sum := sha256.New()
		if _, err := io.Copy(sum, r.Body); err == nil {
			fmt.Fprintf(w, "%x %s", sum.Sum(nil), r.Proto)
		}
	})
	server := &http3.Server{Handler: mux, TLSConfig: http3.ConfigureTLSConfig(id.config())}
	pc := d.n.Target.ListenPacket("udp", net.JoinHostPort(netns.TargetIPv4.String(), "443"))
	served := make(chan struct{})
	go func() { defer close(served); _ = server.Serve(pc) }()
	t.Cleanup(func() { server.Close(); <-served })

	socket := &quic.Transport{Conn: newAssociate(t, d.c.host.Host)}
	dials := 0
	transport := &http3.Transport{
		TLSClientConfig: &tls.Config{RootCAs: id.authority},
		// The application's own name server is not the point here.
		Dial: func(ctx context.Context, _ string, tc *tls.Config, qc *quic.Config) (*quic.Conn, error) {
			dials++
			return socket.DialEarly(ctx, &net.UDPAddr{IP: netns.TargetIPv4.AsSlice(), Port: 443}, tc, qc)
		},
	}
	t.Cleanup(func() { transport.Close(); socket.Close(); socket.Conn.Close() })
	web := &http.Client{Transport: transport}

	got := make(chan error, 1)
	go func() {
		r, err := web.Get("https://" + webName + "/data")
		if err != nil {
			got <- err
			return
		}
		defer r.Body.Close()
		b, err := io.ReadAll(r.Body)
		if err == nil && (r.Proto != "HTTP/3.0" || sha256.Sum256(b) != sha256.Sum256(data)) {
			err = fmt.Errorf("%s brings %d bytes of %d, or others", r.Proto, len(b), len(data))
		}
		got <- err
	}()
	select {
	case <-middle.reached:
	case err := <-got:
		t.Fatalf("the download ended before its middle: %v", err)
	case <-d.ctx.Done():
		t.Fatal("the download does not get to its middle")
	}
	d.move(t, "cell")
	middle.release()
	select {
	case err := <-got:
		if err != nil {
			t.Fatalf("download: %v", err)
		}
	case <-d.ctx.Done():
		t.Fatal("the download does not end")
	}
	up := data[:5*mega]
	r, err := web.Post("https://"+webName+"/sum", "application/octet-stream", bytes.NewReader(up))
	if err != nil {
		t.Fatalf("upload: %v", err)
	}
	defer r.Body.Close()
	if b, err := io.ReadAll(r.Body); err != nil || string(b) != fmt.Sprintf("%x HTTP/3.0", sha256.Sum256(up)) {
		t.Errorf("upload: %s, %v", b, err)
	}
	if dials != 1 {
		t.Errorf("%d QUIC connections, want one all the time", dials)
	}
}
