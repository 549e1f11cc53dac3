//go:build netns

package acceptance

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"
	"testing"

	"github.com/godwit-net/godwit/lab/netns"
)

// A counter grows, and lets others wait until it has.
type counter struct {
	mu   sync.Mutex
	n    int64
	more chan struct{} // closed and replaced at each change
}

func (c *counter) set(n int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.n = n
	if c.more != nil {
		close(c.more)
	}
	c.more = make(chan struct{})
}

func (c *counter) get() (n int64, more <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.more == nil {
		c.more = make(chan struct{})
	}
	return c.n, c.more
}

// wait waits until the counter is at least n, or above or at n after it.
func (c *counter) wait(ctx context.Context, n int64) error {
	for {
		now, more := c.get()
		if now >= n {
			return nil
		}
		select {
		case <-more:
		case <-ctx.Done():
			return fmt.Errorf("at %d of %d: %w", now, n, ctx.Err())
		}
	}
}

// A site is a web site at the target. /hello says hello, and to whom. /stream
// sends size bytes that look random and are the same each time, as far as the
// gate lets it. /upload gives the SHA-256 of what it is sent.
type site struct {
	gate counter

	mu    sync.Mutex
	conns []string // remote addresses of all connections
	sum   string   // SHA-256 of the last stream, when it has all been sent
}

func startSite(t *testing.T, n *netns.Network, address string) *site {
	t.Helper()
	s := &site{}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /hello", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "hello %s, this is %s\n", r.RemoteAddr, r.Host)
	})
	mux.HandleFunc("GET /stream", s.stream)
	mux.HandleFunc("POST /upload", func(w http.ResponseWriter, r *http.Request) {
		sum := sha256.New()
		if _, err := io.Copy(sum, r.Body); err == nil {
			fmt.Fprintf(w, "%x\n", sum.Sum(nil))
		}
	})
	server := &http.Server{Handler: mux, ConnState: func(c net.Conn, state http.ConnState) {
		if state == http.StateNew {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.conns = append(s.conns, c.RemoteAddr().String())
		}
	}}
	ln := n.Target.Listen("tcp", address)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(ln)
	}()
	t.Cleanup(func() {
		server.Close()
		<-done
	})
	return s
}

func (s *site) stream(w http.ResponseWriter, r *http.Request) {
	size, err := strconv.ParseInt(r.URL.Query().Get("size"), 10, 64)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Length", strconv.FormatInt(size, 10))
	source := streamSource()
	hash := sha256.New()
	buf := make([]byte, 64<<10)
	for sent := int64(0); sent < size; {
		b := buf[:min(size-sent, int64(len(buf)))]
		_, _ = source.Read(b)
		hash.Write(b)
		if s.gate.wait(r.Context(), sent+int64(len(b))) != nil {
			return
		}
		if _, err := w.Write(b); err != nil {
			return
		}
		sent += int64(len(b))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sum = hex.EncodeToString(hash.Sum(nil))
}

// result gives the addresses of all connections so far and the sum of the
// last stream.
func (s *site) result() (conns []string, sum string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append(conns, s.conns...), s.sum
}

// A download is one GET through a client's proxy.
type download struct {
	progress counter
	done     chan struct{} // closed at the end, after the rest is set
	err      error
	sum      string
}

func startDownload(t *testing.T, c *client, url string) *download {
	t.Helper()
	d := &download{done: make(chan struct{})}
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(func() {
		cancel()
		<-d.done
	})
	go func() {
		defer close(d.done)
		d.err = d.get(ctx, c, url)
	}()
	return d
}

func (d *download) get(ctx context.Context, c *client, url string) error {
	tr := &http.Transport{DialContext: c.DialContext, DisableCompression: true}
	defer tr.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := tr.RoundTrip(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("GET %s: %s", url, resp.Status)
	}
	hash, buf, n := sha256.New(), make([]byte, 256<<10), int64(0)
	for {
		k, err := resp.Body.Read(buf)
		hash.Write(buf[:k])
		n += int64(k)
		d.progress.set(n)
		switch {
		case err == io.EOF && n == resp.ContentLength:
			d.sum = hex.EncodeToString(hash.Sum(nil))
			return nil
		case err != nil:
			return fmt.Errorf("after %d bytes of %d: %w", n, resp.ContentLength, err)
		}
	}
}

// reach waits until n bytes are there.
func (d *download) reach(t *testing.T, ctx context.Context, n int64) {
	t.Helper()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case <-d.done: // maybe of an error
			cancel()
		case <-ctx.Done():
		}
	}()
	if err := d.progress.wait(ctx, n); err != nil {
		select {
		case <-d.done:
			t.Fatalf("download: %v", d.err)
		default:
			t.Fatalf("download: %v", err)
		}
	}
}
