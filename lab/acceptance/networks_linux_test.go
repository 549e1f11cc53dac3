//go:build netns

package acceptance

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/godwit-net/godwit/lab/netns"
)

// A network is one that a client finds itself in, and what godwit makes of it.
type network struct {
	access netns.AccessConfig // Name is set by cross

	// endpoint is how the client names the server, and listen where the server
	// listens; the server's IPv4 address and port 443 if empty.
	endpoint, listen string
	// server has more flags for godwit server init.
	server []string
	// settings are put before all others in server.toml.
	settings string
	debug    bool // has the server log at level debug
	// encapsulations are named in both folders; those that init writes if nil.
	encapsulations []string
	// tries are those that doctor has to tell of, if they are not these.
	tries []string
	// before runs when the hosts are there, before the server starts.
	before func(*testing.T, *netns.Network)
	// joined may change the client's folder before it runs.
	joined func(t *testing.T, c *client)
	// client has more flags for godwit client run.
	client []string

	// fails names the step at which godwit doctor has to see an encapsulation fail;
	// all others have to pass.
	fails         map[string]string
	encapsulation string // that it has to settle on
	verdict       string // of every encapsulation that passes
	// proxied says that the client leaves by a proxy, so that doctor sees nothing of the
	// server by itself.
	proxied bool
	// timeless says that the web site does not tell the time.
	timeless bool
	// interceptor is who issued the certificate that is seen in place of the server's,
	// and nat64 the prefix of the network's NAT64; empty if there is none.
	interceptor, nat64 string
	// also looks at the running client at the end. It may be nil.
	also func(*testing.T, *netns.Network, *client)
}

// siteAddress is where the target has its site.
var siteAddress = net.JoinHostPort(netns.TargetIPv4.String(), "8000")

var siteURL = "http://" + siteAddress

// each is how much goes each way.
const each = 50 * mega

// cross has a client find its way through the network to its server, moves data
// both ways, and checks sums, encapsulation and verdict.
func (w network) cross(t *testing.T) {
	t.Helper()
	ctx := within(t, 3*time.Minute)
	w.access.Name = "access"
	n := netns.New(t, netns.Config{Access: []netns.AccessConfig{w.access}})
	if w.before != nil {
		w.before(t, n)
	}
	startSite(t, n, siteAddress).gate.set(each)
	s := w.startServer(t, n)
	c := joinClient(t, s, n.Clients[0])
	w.setEncapsulations(t, c.dir, "client.toml")
	if w.joined != nil {
		w.joined(t, c)
	}
	c.run(t, w.client...)
	c.wantBothWays(t, ctx, siteURL)
	// What the data went by, or better: a climb may have come meanwhile.
	at := c.await(t, ctx, fmt.Sprintf("%s, verdict %s", w.encapsulation, w.verdict), func(s status) bool {
		return s.State == "connected" && s.Path.Encapsulation == w.encapsulation && s.Path.Verdict == w.verdict
	})
	t.Log(at)
	w.wantDiagnosis(t, ctx, c)
	if w.also != nil {
		w.also(t, n, c)
	}
}

// wantDiagnosis checks that godwit doctor tells the truth, and that data still
// flows after it.
func (w network) wantDiagnosis(t *testing.T, ctx context.Context, c *client) {
	t.Helper()
	out := must(t, c.host.Host, "doctor", "--json", "--dir", c.dir)
	var found diagnosis
	if err := json.Unmarshal([]byte(out), &found); err != nil {
		t.Fatalf("doctor: %v: %s", err, out)
	}
	want := w.tries
	if want == nil {
		want = w.encapsulations
	}
	if want == nil {
		want = []string{"udp", "tcp", "websocket", "http"}
	}
	for i, e := range found.Encapsulations {
		failed, told := w.fails[e.Encapsulation]
		if e.Encapsulation == "http" && !told && w.fails["websocket"] == "connect" {
			failed = "connect" // what holds for one holds for the other
		}
		switch {
		case i >= len(want) || e.Encapsulation != want[i]:
			t.Errorf("doctor tells of %s in place %d of %q", e.Encapsulation, i, want)
		case e.Encapsulation == "esp": // whether it is in use by now is a matter of time
		case e.Failed != failed || e.Passes != (failed == ""):
			t.Errorf("doctor says of %s: passes %v, failed at %q, want %q: %s", e.Encapsulation, e.Passes, e.Failed, failed, e.Detail)
		case !e.Passes:
			if e.Detail == "" && failed != "registration" {
				t.Errorf("doctor does not say why %s fails at %s", e.Encapsulation, failed)
			}
		case e.Translation != w.verdict:
			t.Errorf("doctor says that %s is translated by %s, want %s", e.Encapsulation, e.Translation, w.verdict)
		default:
			w.wantMeasured(t, e)
		}
	}
	w.wantDirect(t, found, want)
	if !found.Running || found.Use == "" || w.encapsulation != "esp" && found.Use != w.encapsulation {
		t.Errorf("doctor: running %v, use %q, want %q", found.Running, found.Use, w.encapsulation)
	}
	if t.Failed() {
		t.Log(out)
	}
	if err := c.upload(ctx, siteURL+"/upload"); err != nil {
		t.Errorf("after the diagnosis: %v", err)
	}
}

// A diagnosis is what doctor --json is documented to hold.
type diagnosis struct {
	Running        bool
	Encapsulations []diagnosed
	Address        string
	NAT64          string
	Interceptor    string
	ResolveError   string   `json:"resolve_error"`
	RouteError     string   `json:"route_error"`
	ConnectError   string   `json:"connect_error"`
	TLSError       string   `json:"tls_error"`
	ClockAhead     *float64 `json:"clock_ahead_s"`
	Portal         *portalStatus
	Use, Down      string
	Because        string
}

// A diagnosed is one encapsulation of a diagnosis.
type diagnosed struct {
	Encapsulation, Failed, Detail, Translation string
	Passes                                     bool
	RTTms                                      float64 `json:"rtt_ms"`
	Size                                       int
}

// wantMeasured checks what doctor has measured of an encapsulation that passes: no
// machine is faster than the network's delay, and packets of the size that it tells
// fit the network.
func (w network) wantMeasured(t *testing.T, e diagnosed) {
	t.Helper()
	if least := 2 * float64(w.access.Delay) / float64(time.Millisecond); e.RTTms < least || e.RTTms == 0 {
		t.Errorf("doctor says that the round trip by %s takes %v ms, want at least %v", e.Encapsulation, e.RTTms, least)
	}
	mtu := w.access.MTU
	if mtu == 0 {
		mtu = 1500
	}
	datagrams := strings.HasPrefix(e.Encapsulation, "udp")
	if datagrams && (e.Size < 1200 || e.Size > mtu) || !datagrams && e.Size != 0 {
		t.Errorf("doctor says that packets of %d bytes pass by %s, where the MTU is %d", e.Size, e.Encapsulation, mtu)
	}
}

// wantDirect checks what doctor has seen of the server without keys.
func (w network) wantDirect(t *testing.T, found diagnosis, encapsulations []string) {
	t.Helper()
	failsAt := func(step string) bool {
		return slices.ContainsFunc(encapsulations, func(e string) bool { return w.fails[e] == step })
	}
	if found.ResolveError != "" || found.RouteError != "" {
		t.Errorf("doctor finds no way: %q, %q", found.ResolveError, found.RouteError)
	}
	if (found.ConnectError != "") != failsAt("connect") || (found.TLSError != "") != failsAt("tls") {
		t.Errorf("doctor cannot connect: %q, or not by TLS: %q", found.ConnectError, found.TLSError)
	}
	if (found.Address == "") != w.proxied {
		t.Errorf("doctor has the server at %q, behind a proxy: %v", found.Address, w.proxied)
	}
	if !strings.HasSuffix(found.Interceptor, w.interceptor) || (found.Interceptor == "") != (w.interceptor == "") {
		t.Errorf("doctor says that TLS is intercepted by %q, want %q", found.Interceptor, w.interceptor)
	}
	if found.NAT64 != w.nat64 || found.Portal != nil {
		t.Errorf("doctor has found NAT64 %q, want %q, and a portal %v", found.NAT64, w.nat64, found.Portal)
	}
	// The web site tells the time wherever TLS leads to it; both ends have one clock here.
	seen := !w.proxied && !w.timeless && !failsAt("connect") && w.fails["websocket"] == ""
	if (found.ClockAhead != nil) != seen || seen && (*found.ClockAhead < -30 || *found.ClockAhead > 30) {
		t.Errorf("doctor has seen a clock: %v, want one: %v", found.ClockAhead, seen)
	}
}

func (w network) startServer(t *testing.T, n *netns.Network) *server {
	t.Helper()
	s := &server{host: n.Server, dir: t.TempDir()}
	if w.listen == "" {
		w.listen = net.JoinHostPort(netns.ServerIPv4.String(), "443")
	}
	if w.endpoint == "" {
		w.endpoint = w.listen
	}
	must(t, s.host, append([]string{"server", "init", "--endpoint", w.endpoint, "--listen", w.listen,
		"--allow", netns.TargetNet.String(), "--dir", s.dir}, w.server...)...)
	setOffload(t, filepath.Join(s.dir, "server.toml"))
	w.setEncapsulations(t, s.dir, "server.toml")
	changeFile(t, filepath.Join(s.dir, "server.toml"), "\n", "\n"+w.settings)
	if w.debug {
		changeFile(t, filepath.Join(s.dir, "server.toml"), `log_level = "info"`, `log_level = "debug"`)
	}
	s.Process = start(t, s.host, "server", "run", "--dir", s.dir)
	return s
}

func (w network) setEncapsulations(t *testing.T, dir, file string) {
	t.Helper()
	if w.encapsulations == nil {
		return
	}
	changeFile(t, filepath.Join(dir, file), `encapsulations = ["udp", "tcp", "websocket", "http"]`,
		fmt.Sprintf(`encapsulations = ["%s"]`, strings.Join(w.encapsulations, `", "`)))
}

// changeFile replaces a piece of a file that has to be there.
func changeFile(t *testing.T, file, from, to string) {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	changed := strings.Replace(string(b), from, to, 1)
	if changed == string(b) && from != to {
		t.Fatalf("%s does not say %s:\n%s", file, from, b)
	}
	if err := os.WriteFile(file, []byte(changed), 0o600); err != nil {
		t.Fatal(err)
	}
}

// wantBothWays moves data down and up through the client's proxy and compares
// the sums.
func (c *client) wantBothWays(t *testing.T, ctx context.Context, from string) {
	t.Helper()
	if err := c.upload(ctx, from+"/upload"); err != nil {
		t.Fatalf("upload: %v", err)
	}
	if err := c.fetch(ctx, fmt.Sprintf("%s/stream?size=%d", from, each)); err != nil {
		t.Fatalf("download: %v", err)
	}
}

// streamSource gives the bytes of the site's streams.
func streamSource() io.Reader {
	return rand.NewChaCha8([32]byte([]byte("a deterministic stream of bytes.")))
}

func (c *client) fetch(ctx context.Context, url string) error {
	d := &download{done: make(chan struct{})}
	if err := d.get(ctx, c, url); err != nil {
		return err
	}
	want := sha256.New()
	if _, err := io.CopyN(want, streamSource(), each); err != nil {
		return err
	}
	if d.sum != hex.EncodeToString(want.Sum(nil)) {
		return fmt.Errorf("sum is %s, not %x", d.sum, want.Sum(nil))
	}
	return nil
}

func (c *client) upload(ctx context.Context, url string) error {
	tr := &http.Transport{DialContext: c.DialContext}
	defer tr.CloseIdleConnections()
	sum := sha256.New()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, io.TeeReader(io.LimitReader(streamSource(), each), sum))
	if err != nil {
		return err
	}
	req.ContentLength = each
	resp, err := tr.RoundTrip(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(io.LimitReader(resp.Body, 1000))
	if err != nil {
		return err
	}
	if want := hex.EncodeToString(sum.Sum(nil)); resp.StatusCode != http.StatusOK || string(bytes.TrimSpace(got)) != want {
		return fmt.Errorf("%s, %q, not %s", resp.Status, strings.TrimSpace(string(got)), want)
	}
	return nil
}
