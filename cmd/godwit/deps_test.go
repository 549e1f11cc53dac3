package main

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/godwit-net/godwit"

// mayImport is who imports whom inside the module, by folder; a rule for a
// folder holds for those below it that have none of their own, and what it
// allows includes what lies below. Tests may import what they like.
var mayImport = map[string][]string{
	"cmd": {""},

	"client":            {"client", "mobility", "tunnel", "transports", "ipsec"},
	"client/forward":    {"tunnel/portmsg", "tunnel/relay"},
	"client/front":      {"tunnel/relay"},
	"client/machine":    {"clock", "tunnel"},
	"client/nat64":      {},
	"client/socks":      {"client/front", "tunnel/relay"}, // its errors
	"client/statuspage": {"client"},
	"client/warm":       {},
	"server":            {"server", "mobility", "tunnel", "transports", "ipsec", "clock"},
	// What leaves the server knows nothing of tunnels.
	"server/egress":  {"clock", "tunnel/relay"},
	"server/forward": {"tunnel/portmsg", "tunnel/relay"},
	// The web server knows the words alone; encapsulations are mounted in it.
	"server/site": {"transports"},

	"mobility":          {"mobility/regmsg", "transports", "ipsec"},
	"mobility/regmsg":   {"transports"},
	"mobility/netwatch": {},
	"mobility/places":   {"mobility/netwatch", "transports"},
	"mobility/owner":    {},
	"mobility/rate":     {},
	"mobility/pathmtu":  {},
	"mobility/link":     {"mobility", "tunnel", "transports", "ipsec", "clock"},

	// An encapsulation knows the words, and how packets are framed in streams;
	// never another encapsulation.
	"transports":        {},
	"transports/stream": {"transports"},
	"transports/udp":    {"transports"},
	// Bare ESP is what UDP carries, without UDP's header.
	"transports/esp":       {"transports", "transports/udp"},
	"transports/tcp":       {"transports", "transports/stream"},
	"transports/web":       {"transports", "transports/stream"},
	"transports/websocket": {"transports", "transports/stream", "transports/web"},
	"transports/proxy":     {"transports", "transports/stream"},
	"transports/http":      {"transports", "transports/stream", "transports/web"},
	"transports/portmux":   {},
	"transports/system":    {"transports"},
	// What tests are made of; it runs them on the real network too.
	"transports/transporttest": {"transports", "transports/system", "transports/web"},

	"ipsec/eap":         {},
	"ipsec/esp":         {},
	"ipsec/knock":       {"ipsec/ike/message"},
	"ipsec/ike":         {"ipsec/eap", "ipsec/esp", "ipsec/ike"},
	"ipsec/ike/message": {},
	"ipsec/ike/crypto":  {"ipsec/ike/message"},

	"tunnel":         {"clock"},
	"tunnel/relay":   {"clock"},
	"tunnel/portmsg": {},
	"config":         {},
	"clock":          {},

	// Test networks and measurements stand above everything.
	"lab":   {""},
	"bench": {""},
}

// belongsTo is where each dependency may be used.
var belongsTo = map[string][]string{
	"gvisor.dev/gvisor":                     {"tunnel", "lab"},
	"github.com/BurntSushi/toml":            {"config"},
	"github.com/spf13/cobra":                {"cmd"},
	"github.com/spf13/pflag":                {"cmd"},
	"rsc.io/qr":                             {"cmd"},
	"github.com/coder/websocket":            {"transports/websocket"},
	"github.com/refraction-networking/utls": {"transports/web"},
	"github.com/pires/go-proxyproto":        {"transports/portmux"},
	"github.com/things-go/go-socks5":        {"client/front", "client/forward", "client/machine", "server/egress"},
	"github.com/vishvananda/netlink":        {"client/machine", "lab"},
	"github.com/vishvananda/netns":          {"lab"},
}

// within tells whether folder is root or below it; "" is the root of all.
func within(folder, root string) bool {
	return root == "" || folder == root || strings.HasPrefix(folder, root+"/")
}

// ruleOf gives the longest folder with a rule that holds folder.
func ruleOf(folder string) (rule string, ok bool) {
	for f := range mayImport {
		if within(folder, f) && len(f) >= len(rule) {
			rule, ok = f, true
		}
	}
	return rule, ok
}

// TestWhoImportsWhom holds the table of which package may import which. A
// lower layer never imports a higher one.
func TestWhoImportsWhom(t *testing.T) {
	for _, goos := range []string{"linux", "darwin", "windows"} {
		cmd := exec.Command("go", "list", "-json=ImportPath,Imports", module+"/...")
		cmd.Env = append(cmd.Environ(), "GOOS="+goos, "CGO_ENABLED=0")
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("go list: %v", err)
		}
		for d := json.NewDecoder(strings.NewReader(string(out))); ; {
			var p struct {
				ImportPath string
				Imports    []string
			}
			if err := d.Decode(&p); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				t.Fatal(err)
			}
			checkImports(t, strings.TrimPrefix(strings.TrimPrefix(p.ImportPath, module), "/"), p.Imports)
		}
	}
}

func checkImports(t *testing.T, folder string, imports []string) {
	t.Helper()
	rule, ok := ruleOf(folder)
	if !ok {
		t.Errorf("%s has no rule: add one to mayImport", folder)
		return
	}
	for _, imp := range imports {
		if inner, ok := strings.CutPrefix(imp, module+"/"); ok {
			allowed := slices.ContainsFunc(mayImport[rule], func(root string) bool {
				// A rule for an encapsulation that says transports means the
				// words alone.
				if root == "transports" && (within(folder, "transports") || within(folder, "mobility")) {
					return inner == root
				}
				return within(inner, root)
			})
			if !allowed {
				t.Errorf("%s must not import %s", folder, inner)
			}
			continue
		}
		for dependency, folders := range belongsTo {
			if within(imp, dependency) && !slices.ContainsFunc(folders, func(f string) bool { return within(folder, f) }) {
				t.Errorf("%s must not import %s: it belongs to %s", folder, imp, strings.Join(folders, ", "))
			}
		}
	}
}
