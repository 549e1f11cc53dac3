package statuspage

import (
	"bufio"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/godwit-net/godwit/client"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fake is a client whose status changes with each look.
type fake struct {
	looks, moves atomic.Int64
	forced       []string
}

func (f *fake) Status() client.Status {
	return client.Status{State: "connected", BytesReceived: uint64(f.looks.Add(1))}
}
func (f *fake) Move() { f.moves.Add(1) }
func (f *fake) Force(name string) error {
	if name == "pigeon" {
		return client.ErrNoEncapsulation
	}
	f.forced = append(f.forced, name)
	return nil
}

func ask(p *Page, method, path string, header map[string]string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, path, nil)
	r.Host = "127.0.0.1:1080"
	for k, v := range header {
		if k == "Host" {
			r.Host = v
			continue
		}
		r.Header.Set(k, v)
	}
	w := httptest.NewRecorder()
	p.ServeHTTP(w, r)
	return w
}

func TestWhoMayAsk(t *testing.T) {
	f := &fake{}
	p := New(f)
	own := map[string]string{"Origin": "http://127.0.0.1:1080", "Sec-Fetch-Site": "same-origin"}
	for _, tt := range []struct {
		name, method, path string
		header             map[string]string
		want               int
	}{
		{"the page", "GET", "/", nil, 200},
		{"by a link elsewhere", "GET", "/", map[string]string{"Sec-Fetch-Site": "cross-site"}, 200},
		{"script", "GET", "/page.js", nil, 200},
		{"status", "GET", "/status.json", nil, 200},
		{"localhost", "GET", "/", map[string]string{"Host": "localhost:1080"}, 200},
		{"IPv6", "GET", "/", map[string]string{"Host": "[::1]:1080"}, 200},
		{"no port", "GET", "/", map[string]string{"Host": "[::1]"}, 200},
		{"a name that leads here", "GET", "/", map[string]string{"Host": "evil.example:1080"}, 421},
		{"its status", "GET", "/status.json", map[string]string{"Host": "evil.example:1080"}, 421},
		{"a name that looks like an address", "GET", "/", map[string]string{"Host": "127.0.0.1.evil.example"}, 421},
		{"no host", "GET", "/", map[string]string{"Host": ""}, 421},
		{"status from another site", "GET", "/status.json", map[string]string{"Sec-Fetch-Site": "cross-site"}, 403},
		{"script from another port", "GET", "/page.js", map[string]string{"Sec-Fetch-Site": "same-site"}, 403},
		{"order from the page", "POST", "/move", own, 200},
		{"order from another site", "POST", "/move", map[string]string{"Origin": "http://evil.example", "Sec-Fetch-Site": "cross-site"}, 403},
		{"order from an old browser elsewhere", "POST", "/move", map[string]string{"Origin": "http://evil.example"}, 403},
		{"order without an origin", "POST", "/move", nil, 403},
		{"order by GET", "GET", "/move", own, 405},
		{"force from the page", "POST", "/force?to=tcp", own, 200},
		{"let go from the page", "POST", "/force?to=", own, 200},
		{"force what is not there", "POST", "/force?to=pigeon", own, 400},
		{"force from another site", "POST", "/force?to=udp", map[string]string{"Origin": "http://evil.example", "Sec-Fetch-Site": "cross-site"}, 403},
		{"force by a name that leads here", "POST", "/force?to=udp", map[string]string{"Host": "evil.example:1080", "Origin": "http://evil.example:1080", "Sec-Fetch-Site": "same-origin"}, 421},
		{"force without an origin", "POST", "/force?to=udp", nil, 403},
		{"force by GET", "GET", "/force?to=udp", own, 405},
		{"nothing there", "GET", "/nothing", own, 404},
	} {
		before := f.moves.Load()
		w := ask(p, tt.method, tt.path, tt.header)
		if w.Code != tt.want {
			t.Errorf("%s: %d, want %d", tt.name, w.Code, tt.want)
		}
		if moved := f.moves.Load() != before; moved != (tt.name == "order from the page") {
			t.Errorf("%s: moved is %v", tt.name, moved)
		}
	}
	if got := strings.Join(f.forced, ","); got != "tcp," {
		t.Errorf("forced %q, want tcp and nothing", got)
	}
}

// The page asks nobody else for anything, and the policy forbids what it does
// not need.
func TestPageIsSelfContained(t *testing.T) {
	p := New(&fake{})
	for _, path := range []string{"/", "/page.js", "/page.css"} {
		w := ask(p, "GET", path, nil)
		body := w.Body.String()
		for _, bad := range []string{"https://", "//cdn", "innerHTML", "eval(", "<style", "onclick", "@import"} {
			if strings.Contains(body, bad) {
				t.Errorf("%s holds %q", path, bad)
			}
		}
		if csp := w.Header().Get("Content-Security-Policy"); !strings.Contains(csp, "default-src 'none'") || !strings.Contains(csp, "frame-ancestors 'none'") {
			t.Errorf("%s: policy %q", path, csp)
		}
	}
}

func TestEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := New(&fake{})
		pr, pw := io.Pipe()
		r := httptest.NewRequest("GET", "/events", nil).WithContext(t.Context())
		r.Host = "localhost"
		done := make(chan struct{})
		go func() {
			defer close(done)
			p.ServeHTTP(&streamed{header: http.Header{}, w: pw}, r)
		}()
		lines := bufio.NewScanner(pr)
		began := time.Now()
		for i := range 5 {
			if !lines.Scan() {
				t.Fatal(lines.Err())
			}
			var s client.Status
			if err := json.Unmarshal([]byte(strings.TrimPrefix(lines.Text(), "data: ")), &s); err != nil || s.BytesReceived != uint64(i+1) {
				t.Errorf("event %d: %v, %v", i, s, err)
			}
			lines.Scan()
		}
		if d := time.Since(began); d != 4*tick {
			t.Errorf("five events took %v", d)
		}
		_ = pr.Close()
		<-done
		if n := p.open.Load(); n != 0 {
			t.Errorf("%d pages are counted after the end", n)
		}
		// No more than maxPages are served.
		p.open.Store(maxPages)
		w := httptest.NewRecorder()
		p.ServeHTTP(w, r)
		if w.Code != http.StatusServiceUnavailable {
			t.Errorf("one too many gets %d", w.Code)
		}
	})
}

// streamed is a ResponseWriter that goes out as it is written.
type streamed struct {
	header http.Header
	w      io.Writer
}

func (s *streamed) Header() http.Header              { return s.header }
func (s *streamed) WriteHeader(int)                  {}
func (s *streamed) Write(b []byte) (int, error)      { return s.w.Write(b) }
func (s *streamed) Flush()                           {}
func (s *streamed) SetWriteDeadline(time.Time) error { return nil }
