//go:build netns

package acceptance

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"flag"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/godwit-net/godwit/lab/netns"
)

// A browser is a headless Chromium that is driven by its DevTools protocol.
type browser struct {
	t      *testing.T
	ctx    context.Context
	conn   *websocket.Conn
	id     int
	errors []string // of the page's console, and requests that failed
}

// startBrowser starts Chromium at a client with flags and opens an empty page.
func startBrowser(t *testing.T, ctx context.Context, h *netns.Host, args ...string) *browser {
	t.Helper()
	h.Start("chromium", append([]string{
		"--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-dev-shm-usage",
		"--disable-background-networking", "--disable-component-update", "--disable-sync", "--remote-allow-origins=*",
		"--remote-debugging-port=9222", "--user-data-dir=" + t.TempDir()}, append(args, "about:blank")...)...)
	web := &http.Client{Transport: &http.Transport{DialContext: h.DialContext, DisableKeepAlives: true}}
	var pages []struct {
		Type string `json:"type"`
		URL  string `json:"webSocketDebuggerUrl"`
	}
	for {
		r, err := web.Get("http://127.0.0.1:9222/json")
		if err == nil {
			err = json.NewDecoder(r.Body).Decode(&pages)
			r.Body.Close()
		}
		if err == nil && len(pages) > 0 {
			break
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			t.Fatalf("Chromium does not come up: %v", err)
		}
	}
	b := &browser{t: t, ctx: ctx}
	for _, p := range pages {
		if p.Type == "page" {
			var err error
			if b.conn, _, err = websocket.Dial(ctx, p.URL, &websocket.DialOptions{HTTPClient: web}); err != nil {
				t.Fatalf("DevTools: %v", err)
			}
		}
	}
	if b.conn == nil {
		t.Fatal("Chromium has no page")
	}
	b.conn.SetReadLimit(64 << 20)
	t.Cleanup(func() { b.conn.CloseNow() })
	for _, domain := range []string{"Page", "Runtime", "Log", "Network"} {
		b.call(domain+".enable", nil)
	}
	return b
}

// call sends one command and gives its result. Events that come meanwhile are
// looked through for errors.
func (b *browser) call(method string, params any) json.RawMessage {
	b.t.Helper()
	b.id++
	m, err := json.Marshal(map[string]any{"id": b.id, "method": method, "params": params})
	if err == nil {
		err = b.conn.Write(b.ctx, websocket.MessageText, m)
	}
	for err == nil {
		var data []byte
		if _, data, err = b.conn.Read(b.ctx); err != nil {
			break
		}
		var in struct {
			ID     int             `json:"id"`
			Method string          `json:"method"`
			Params json.RawMessage `json:"params"`
			Result json.RawMessage `json:"result"`
			Error  json.RawMessage `json:"error"`
		}
		if err = json.Unmarshal(data, &in); err != nil {
			break
		}
		switch {
		case in.ID == b.id && in.Error != nil:
			b.t.Fatalf("%s: %s", method, in.Error)
		case in.ID == b.id:
			return in.Result
		case in.Method == "Runtime.exceptionThrown", in.Method == "Network.loadingFailed",
			in.Method == "Log.entryAdded" && strings.Contains(string(in.Params), `"level":"error"`):
			b.errors = append(b.errors, in.Method+": "+string(in.Params))
		}
	}
	b.t.Fatalf("%s: %v", method, err)
	return nil
}

// eval gives the value of a JavaScript expression, a promise's when it settles.
func (b *browser) eval(expression string, value any) {
	b.t.Helper()
	var r struct {
		Result    struct{ Value json.RawMessage }
		Exception json.RawMessage `json:"exceptionDetails"`
	}
	err := json.Unmarshal(b.call("Runtime.evaluate", map[string]any{"expression": expression, "awaitPromise": true, "returnByValue": true}), &r)
	if err == nil && r.Exception != nil {
		b.t.Fatalf("%s: %s", expression, r.Exception)
	}
	if err == nil && value != nil {
		err = json.Unmarshal(r.Result.Value, value)
	}
	if err != nil {
		b.t.Fatalf("%s: %v", expression, err)
	}
}

// until waits for a JavaScript expression to hold.
func (b *browser) until(what, expression string) {
	b.t.Helper()
	for {
		var ok bool
		if b.eval("Boolean("+expression+")", &ok); ok {
			return
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-b.ctx.Done():
			b.t.Fatalf("%s: never", what)
		}
	}
}

const pageObjects = 100

// startGallery is a site with a page of many objects. Each takes a moment, so
// that a move falls among them.
func startGallery(t *testing.T, n *netns.Network, address string) {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /page", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		fmt.Fprint(w, "<!doctype html><title>gallery</title><script>var good = 0, bad = 0</script>")
		for i := range pageObjects {
			fmt.Fprintf(w, `<img src="/object/%d" onload="good++" onerror="bad++" width=8 height=8>`, i)
		}
	})
	mux.HandleFunc("GET /favicon.ico", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("GET /object/", func(w http.ResponseWriter, _ *http.Request) {
		time.Sleep(100 * time.Millisecond)
		w.Header().Set("Content-Type", "image/svg+xml")
		w.Header().Set("Cache-Control", "no-store")
		fmt.Fprintf(w, `<svg xmlns="http://www.w3.org/2000/svg" width="8" height="8"><!-- %s --></svg>`, strings.Repeat("x", 10_000))
	})
	server := &http.Server{Handler: mux}
	ln := n.Target.Listen("tcp", address)
	done := make(chan struct{})
	go func() { defer close(done); _ = server.Serve(ln) }()
	t.Cleanup(func() { server.Close(); <-done })
}

// startNear is a site at a host itself that says who asks.
func startNear(t *testing.T, h *netns.Host, address string) string {
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host, _, _ := net.SplitHostPort(r.RemoteAddr)
		w.Header().Set("Content-Type", "text/html")
		fmt.Fprintf(w, "<!doctype html><title>near %s</title><link rel=icon href=data:,>", host)
	})}
	ln := h.Listen("tcp", address)
	done := make(chan struct{})
	go func() { defer close(done); _ = server.Serve(ln) }()
	t.Cleanup(func() { server.Close(); <-done })
	return address
}

// Chromium loads a page of many objects by SOCKS5 and by the PAC file, and once
// more while the client moves to another network: no request fails. The browser
// sits on a desk beside the client, on a wire of its own: on the machine that
// moves it would drop all its connections by itself (ERR_NETWORK_CHANGED).
func TestBrowser(t *testing.T) {
	const onWire = "192.168.77.1:1080"
	for _, tt := range []struct{ name, flag string }{
		{"SOCKS5", "--proxy-server=socks5://" + onWire},
		{"PAC", "--proxy-pac-url=http://" + onWire + "/proxy.pac"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ctx := within(t, 2*time.Minute)
			n := netns.New(t, netns.Config{Access: accessNetworks[:2]})
			startGallery(t, n, net.JoinHostPort(netns.TargetIPv4.String(), "80"))
			startDNS(t, n.Server, "web.test.", netns.TargetIPv4)
			desk := n.Clients[0].Lab().Host("desk")
			n.Clients[0].Lab().Wire(
				netns.Port{Host: desk, Dev: "lan", Addrs: []netip.Prefix{netip.MustParsePrefix("192.168.77.2/24")}},
				netns.Port{Host: n.Clients[0].Host, Dev: "lan", Addrs: []netip.Prefix{netip.MustParsePrefix("192.168.77.1/24")}})
			names := watchNames(t, n.Clients[0].Host)
			// What bypasses the proxy by its own file is on the desk's wire, which nobody
			// else can reach.
			near := startNear(t, n.Clients[0].Host, "192.168.77.1:8080")
			s := startServer(t, n)
			c := startClient(t, s, n.Clients[0], "--listen", "0.0.0.0:1080", "--bypass", "*.desk.test,192.168.77.0/24")
			b := startBrowser(t, ctx, desk, tt.flag)
			load := func(when string, during func()) {
				t.Helper()
				b.call("Page.navigate", map[string]any{"url": "http://web.test/page"})
				b.until(when+": the first objects", "window.good > 5")
				during()
				b.until(when+": all objects", fmt.Sprintf("window.good + window.bad == %d", pageObjects))
				var bad int
				if b.eval("bad", &bad); bad != 0 || len(b.errors) > 0 {
					t.Errorf("%s: %d objects failed: %s", when, bad, strings.Join(b.errors, "\n"))
				}
			}
			load("before the move", func() {})
			load("across the move", func() { n.Clients[0].Move("cell", netns.Hard) })
			c.await(t, ctx, "connected in the other network", func(s status) bool { return s.State == "connected" && s.Path.Verdict == "napt" })
			load("after the move", func() {})
			if tt.name == "PAC" {
				b.call("Page.navigate", map[string]any{"url": "http://" + near + "/"})
				b.until("a page that bypasses the proxy", `document.title == "near 192.168.77.2"`)
			}
			if k := names.count(); k > 0 {
				t.Errorf("%d packets asked a name server outside the tunnel", k)
			}
		})
	}
}

var screenshots = flag.String("screenshots", "", "folder to write pictures of the status page to")

// TestStatusPage looks at the page as a person does.
func TestStatusPage(t *testing.T) {
	ctx := within(t, 2*time.Minute)
	n := netns.New(t, netns.Config{Access: accessNetworks[:2]})
	site := startSite(t, n, net.JoinHostPort(netns.TargetIPv4.String(), "80"))
	s := startServer(t, n)
	c := startClient(t, s, n.Clients[0])
	b := startBrowser(t, ctx, n.Clients[0].Host)
	b.call("Emulation.setDeviceMetricsOverride", map[string]any{"width": 1000, "height": 1000, "deviceScaleFactor": 1, "mobile": false})
	b.call("Page.navigate", map[string]any{"url": "http://" + proxyAddress + "/"})
	b.until("the state", `document.getElementById("state")?.textContent == "connected"`)
	b.until("the NAT in the picture", `document.querySelector("#path .between b")?.textContent == "NAT"`)
	b.eval(`window.sameDocument = true; document.querySelectorAll("#moves li").length`, nil)
	var before, nodes int
	b.eval(`document.querySelectorAll("#moves li").length`, &before)
	b.eval(`document.querySelectorAll("#path li").length`, &nodes)
	if nodes != 5 {
		t.Errorf("the path has %d stations, want programs, machine, NAT, server, targets", nodes)
	}
	// Data flows in the move, which leaves a gap to be shown.
	d := startDownload(t, c, "http://"+net.JoinHostPort(netns.TargetIPv4.String(), "80")+"/stream?size=20000000")
	site.gate.set(10 * mega)
	d.reach(t, ctx, 5*mega)
	n.Clients[0].Move("cell", netns.Hard)
	site.gate.set(20 * mega)
	b.until("the move, without a reload", fmt.Sprintf(`window.sameDocument && document.querySelectorAll("#moves li").length > %d && document.querySelector("#moves li span").textContent.startsWith("the network changed")`, before))
	moves := `document.querySelectorAll("#moves li").length`
	var n1 int
	b.eval(moves, &n1)
	b.eval(`document.getElementById("move").click()`, nil)
	b.until("the move that was asked for", fmt.Sprintf("%s > %d", moves, n1))
	// Another encapsulation, by the button, and back; a phone shows both.
	b.until("a button for each encapsulation", `document.querySelectorAll("#force button").length >= 4`)
	b.eval(`document.querySelector("#force [data-to=tcp]").click()`, nil)
	b.until("all data by what was forced", `document.querySelector("#path").textContent.includes("by tcp") && document.querySelector("#force [data-to=tcp]").getAttribute("aria-pressed") == "true"`)
	n.Access[1].SetFirewall(netns.Firewall{Out: "meta l4proto tcp counter drop", In: "meta l4proto tcp counter drop"})
	b.eval(`document.querySelector("#force [data-to=websocket]").click()`, nil)
	b.until("that what was forced does not pass", `document.getElementById("state").textContent == "moving" && document.getElementById("trouble").textContent.includes("Only websocket may be used")`)
	b.eval(`document.querySelector("#force [data-to='']").click()`, nil)
	b.until("what passes again", `document.getElementById("state").textContent == "connected" && document.getElementById("trouble").hidden && document.querySelector("#path").textContent.includes("by udp")`)
	n.Access[1].SetFirewall(netns.Firewall{})
	<-d.done
	if d.err != nil {
		t.Errorf("download: %v", d.err)
	}
	b.until("rates, with their peak", `document.querySelectorAll("#down polyline").length == 1 && document.querySelectorAll("#rtt polyline").length == 1 && document.getElementById("down-most").textContent.endsWith("B/s")`)
	b.until("the gap that a move left", `[...document.querySelectorAll("#moves li")].some((li) => li.textContent.includes("the network changed") && li.textContent.includes("data paused for "))`)
	for _, shot := range []struct {
		name, theme string
		width       int
	}{{"status-light", "light", 1000}, {"status-dark", "dark", 1000}, {"status-phone", "light", 390}} {
		b.call("Emulation.setDeviceMetricsOverride", map[string]any{"width": shot.width, "height": 1100, "deviceScaleFactor": 1, "mobile": shot.width < 600})
		b.call("Emulation.setEmulatedMedia", map[string]any{"features": []map[string]string{{"name": "prefers-color-scheme", "value": shot.theme}}})
		var wider bool
		if b.eval("document.documentElement.scrollWidth > window.innerWidth", &wider); wider {
			t.Errorf("%s: wider than the screen", shot.name)
		}
		var r struct{ Data string }
		if err := json.Unmarshal(b.call("Page.captureScreenshot", nil), &r); err != nil {
			t.Fatal(err)
		}
		png, err := base64.StdEncoding.DecodeString(r.Data)
		if err != nil || len(png) < 5000 {
			t.Errorf("%s: %d bytes, %v", shot.name, len(png), err)
		}
		if *screenshots != "" {
			if err := os.WriteFile(filepath.Join(*screenshots, shot.name+".png"), png, 0o644); err != nil {
				t.Error(err)
			}
		}
	}
	if len(b.errors) > 0 {
		t.Errorf("the browser complains: %s", strings.Join(b.errors, "\n"))
	}
}
