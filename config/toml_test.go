package config

import (
	"log/slog"
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"github.com/BurntSushi/toml"
)

const minimalServer = `endpoint = "vpn.example.org:443"
websocket_path = "/change-me-to-something-random"
`

const minimalClient = `name = "laptop"
server = "vpn.example.org:443"
server_key = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
cert_hash = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"
websocket_path = "/change-me-to-something-random"
`

// keys gives the keys of a file.
func keys(t *testing.T, text string) map[string]bool {
	t.Helper()
	values := map[string]any{}
	if _, err := toml.Decode(text, &values); err != nil {
		t.Fatal(err)
	}
	set := map[string]bool{}
	for k := range values {
		set[k] = true
	}
	return set
}

func TestReferenceHoldsEveryKeyAndTheDefaults(t *testing.T) {
	reference, err := ParseServer("reference-server.toml", []byte(ReferenceServer))
	if err != nil {
		t.Fatal(err)
	}
	minimal, err := ParseServer("server.toml", []byte(minimalServer))
	if err != nil {
		t.Fatal(err)
	}
	for _, list := range []any{&reference.Allow, &reference.AllowForward} {
		if v := reflect.ValueOf(list).Elem(); v.Len() == 0 {
			v.SetZero()
		}
	}
	if !reflect.DeepEqual(reference, minimal) {
		t.Errorf("the reference says\n%+v\nbut the defaults are\n%+v", reference, minimal)
	}
	if got, want := keys(t, ReferenceServer), keys(t, string(minimal.Encode())); !reflect.DeepEqual(got, want) {
		t.Errorf("the reference explains %v, the code writes %v", got, want)
	}

	referenceC, err := ParseClient("reference-client.toml", []byte(ReferenceClient))
	if err != nil {
		t.Fatal(err)
	}
	minimalC, err := ParseClient("client.toml", []byte(minimalClient))
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(referenceC, minimalC) {
		t.Errorf("the reference says\n%+v\nbut the defaults are\n%+v", referenceC, minimalC)
	}
	if got, want := keys(t, ReferenceClient), keys(t, string(minimalC.Encode())); !reflect.DeepEqual(got, want) {
		t.Errorf("the reference explains %v, the code writes %v", got, want)
	}
}

func TestEncodeParsesBack(t *testing.T) {
	s := &Server{
		Endpoint: "[2001:db8::1]:8443", Listen: netip.MustParseAddrPort("0.0.0.0:4500"),
		Allow: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("::1/128")},
		Pool4: netip.MustParsePrefix("172.20.0.0/24"), Pool6: netip.MustParsePrefix("fd00::/100"),
		Encapsulations: []string{"websocket", "udp"}, WebSocketPath: "/a/b.c~d_e-f", PostQuantum: "require", LogLevel: slog.LevelWarn, NoOffload: true, ReplayMemory: 3,
		Metrics: netip.MustParseAddrPort("127.0.0.1:9464"),
		Web: Web{
			Site: "http://127.0.0.1:8080", RedirectHTTP: true, TrustedProxies: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")},
			CertificateFile: "a.crt", CertificateKeyFile: "a.key", ACMEDirectory: "https://ca.example/", Verify: "pin", Stealth: true,
		},
	}
	got, err := ParseServer("server.toml", s.Encode())
	if err != nil || !reflect.DeepEqual(got, s) {
		t.Errorf("got %+v, %v, want %+v", got, err, s)
	}
	c, err := ParseClient("client.toml", []byte(minimalClient+"listen = \"[::1]:9\"\nencapsulations = [\"tcp\"]\nlog_level = \"debug\"\n"))
	if err != nil {
		t.Fatal(err)
	}
	gotC, err := ParseClient("client.toml", c.Encode())
	if err != nil || !reflect.DeepEqual(gotC, c) {
		t.Errorf("got %+v, %v, want %+v", gotC, err, c)
	}
}

// A port alone is one of this host, as nobody is asked there who he is.
func TestMetricsOfThisHostAlone(t *testing.T) {
	s, err := ParseServer("server.toml", []byte(minimalServer+`metrics = ":9464"`))
	if err != nil || s.Metrics != netip.MustParseAddrPort("127.0.0.1:9464") {
		t.Errorf("got %+v, %v", s, err)
	}
}

func TestServerMistakes(t *testing.T) {
	tests := []struct {
		name, text string
		want       []string
	}{
		{"a typo", minimalServer + `lisen = "[::]:1"`, []string{"unknown key", `"lisen"`, "did you mean listen?"}},
		{"the case matters", minimalServer + `Listen = "[::]:1"`, []string{`"Listen"`, "did you mean listen?"}},
		{"nothing like it", minimalServer + `colour = "red"`, []string{`"colour"`, "the keys are endpoint, listen, allow"}},
		{"an unknown table", minimalServer + "[users]\na = 1", []string{`"users"`}},
		{"a missing key", `websocket_path = "/x"`, []string{"endpoint", "missing"}},
		{"no path", `endpoint = "a:1"`, []string{"websocket_path", "missing"}},
		{"an empty path", `endpoint = "a:1"` + "\n" + `websocket_path = ""`, []string{"websocket_path", "empty"}},
		{"an endpoint without port", strings.Replace(minimalServer, ":443", "", 1), []string{"endpoint", "not host:port"}},
		{"port 0", strings.Replace(minimalServer, ":443", ":0", 1), []string{"endpoint", "no port"}},
		{"port 65536", strings.Replace(minimalServer, ":443", ":65536", 1), []string{"endpoint", "no port"}},
		{"an endpoint that is everywhere", strings.Replace(minimalServer, "vpn.example.org", "0.0.0.0", 1), []string{"endpoint", "nobody can dial"}},
		{"an endpoint with a scheme", strings.Replace(minimalServer, "vpn", "https://vpn", 1), []string{"endpoint"}},
		{"the wrong type", minimalServer + "listen = 443", []string{"listen", "not a string"}},
		{"a listen address without port", minimalServer + `listen = "::"`, []string{"listen", "not an address and a port"}},
		{"a string for a list", minimalServer + `allow = "10.0.0.0/8"`, []string{"allow", "not a list"}},
		{"a number in a list", minimalServer + `allow = [10]`, []string{"allow", "not a string"}},
		{"host bits", minimalServer + `allow = ["10.0.0.1/8"]`, []string{"allow", "the range is 10.0.0.0/8"}},
		{"a pool of the wrong family", minimalServer + `pool4 = "fd00::/64"`, []string{"pool4", "right family"}},
		{"a pool too small", minimalServer + `pool6 = "fd00::/127"`, []string{"pool6", "no room"}},
		{"an encapsulation with a typo", minimalServer + `encapsulations = ["websockt"]`, []string{"encapsulations", "did you mean websocket?"}},
		{"an encapsulation twice", minimalServer + `encapsulations = ["udp", "udp"]`, []string{"encapsulations", "twice"}},
		{"a port of UDP in another form", minimalServer + `encapsulations = ["udp", "udp-04500"]`, []string{"encapsulations", "udp-04500", "udp-4500 for another port"}},
		{"many ports of UDP", minimalServer + `encapsulations = ["udp-1", "udp-2", "udp-3", "udp-4", "udp-5", "udp-6", "udp-7", "udp-8", "udp-9"]`, []string{"encapsulations", "9 more ports", "8 at most"}},
		{"esp alone", minimalServer + `encapsulations = ["esp"]`, []string{"encapsulations", "alone", "udp"}},
		{"no encapsulation", minimalServer + `encapsulations = []`, []string{"encapsulations", "esp, udp, tcp, websocket, http"}},
		{"an odd path", `endpoint = "a:1"` + "\n" + `websocket_path = "/a b"`, []string{"websocket_path"}},
		{"a proxy with host bits", minimalServer + `trusted_proxies = ["10.0.0.1/8"]`, []string{"trusted_proxies", "the range is 10.0.0.0/8"}},
		{"a certificate without its key", minimalServer + `certificate_file = "a"`, []string{"certificate_file", "two files"}},
		{"an address for ACME", minimalServer + `acme_hosts = ["192.0.2.1"]`, []string{"acme_hosts", "not the name of a host"}},
		{"ACME and files", minimalServer + `acme_hosts = ["a.example"]` + "\ncertificate_file = \"a\"\ncertificate_key_file = \"b\"", []string{"acme_hosts", "two certificates"}},
		{"ACME and a pin", minimalServer + `acme_hosts = ["a.example"]` + "\nverify = \"pin\"", []string{"verify", "cannot be pinned"}},
		{"ACME without TLS", minimalServer + `acme_directory = "http://ca.example/"`, []string{"acme_directory", "https"}},
		{"another way for plain HTTP", minimalServer + `plain_http = "close"`, []string{"plain_http", "site, redirect"}},
		{"stealth for everybody", minimalServer + "stealth = true\n[ikev2]\n", []string{"stealth", "not godwit"}},
		{"metrics nowhere", minimalServer + `metrics = "9464"`, []string{"metrics", "not an address and a port", "127.0.0.1:9464"}},
		{"metrics at no port", minimalServer + `metrics = ":0"`, []string{"metrics", "not an address and a port"}},
		{"metrics where clients come", minimalServer + `metrics = ":443"`, []string{"metrics", "the port is that of the encapsulations"}},
		{"a log level", minimalServer + `log_level = "loud"`, []string{"log_level", "debug, info, warn or error"}},
		{"not TOML", minimalServer + "listen = [\n\n", []string{"not valid TOML", "server.toml line"}},
		{"a key twice", minimalServer + minimalServer, []string{"not valid TOML", "endpoint"}},
		{"too large", "#" + strings.Repeat("x", maxFile), []string{"1 MiB"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := ParseServer("server.toml", []byte(tt.text))
			wantError(t, err, append(tt.want, "server.toml")...)
		})
	}
}

func TestClientMistakes(t *testing.T) {
	tests := []struct{ name, from, to, want string }{
		{"a key cut short", "Hh8=", "Hg==", "server_key"},
		{"a hash cut short", "1c1d1e1f", "1c1d1e", "cert_hash"},
		{"a hash that is none", "1c1d1e1f", "1c1d1e1g", "cert_hash"},
		{"a name that leaves the folder", `"laptop"`, `"../laptop"`, "name"},
		{"no server", "server =", "#server =", "missing, client.toml, server"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := ParseClient("client.toml", []byte(strings.Replace(minimalClient, tt.from, tt.to, 1)))
			wantError(t, err, "client.toml", tt.want)
		})
	}
}

func TestSuggest(t *testing.T) {
	known := []string{"udp", "tcp", "init", "websocket", "listen", "invite"}
	for word, want := range map[string]string{"upd": "", "udpp": "udp", "websokcet": "websocket", "LISTEN": "listen", "invit": "invite", "web": "websocket", "quic": "", "": "", strings.Repeat("x", 100): ""} {
		if got := Suggest(word, known); got != want {
			t.Errorf("Suggest(%q) = %q, want %q", word, got, want)
		}
	}
}

func TestCheckName(t *testing.T) {
	for _, good := range []string{"a", "laptop", "Anna-2.phone_x", "_x", strings.Repeat("n", 64)} {
		if err := CheckName(good); err != nil {
			t.Errorf("%q: %v", good, err)
		}
	}
	for _, bad := range []string{"", ".", "..", "a/b", `a\b`, "-rf", ".lock", "a.", "ä", "a b", "a\n", "NUL", "nul.x", "com1", strings.Repeat("n", 65)} {
		wantError(t, CheckName(bad), "not a client name")
	}
}

func FuzzParseServer(f *testing.F) {
	f.Add([]byte(ReferenceServer))
	f.Add([]byte(minimalServer))
	f.Add([]byte(minimalServer + "allow = [\"::1\", \"127.0.0.0/8\"]"))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := ParseServer("server.toml", data)
		if err != nil {
			if strings.Contains(err.Error(), "\n") {
				t.Errorf("an error of several lines: %q", err)
			}
			return
		}
		again, err := ParseServer("server.toml", s.Encode())
		if err != nil || !reflect.DeepEqual(again.Encode(), s.Encode()) {
			t.Errorf("%+v became %+v, %v", s, again, err)
		}
	})
}

func TestGatewayTable(t *testing.T) {
	const key = `"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="`
	c, err := ParseClient("client.toml", []byte("listen = \"127.0.0.1:1081\"\n[gateway]\nserver = \"vpn.example.org\"\nidentity = \"gw\"\nlocal = \"carol@example.org\"\npsk_file = \"psk\"\n"))
	if err != nil {
		t.Fatal(err)
	}
	g := c.Gateway
	if g == nil || g.Server != "vpn.example.org:4500" || g.Identity != "gw" || g.Local != "carol@example.org" || g.PSKFile != "psk" || c.Listen.Port() != 1081 {
		t.Errorf("%+v of %+v", g, c)
	}
	for _, tt := range []struct{ text, says string }{
		{"server = \"x\"", "0 ways"},
		{"server = \"x\"\nlocal = \"y\"\npsk_file = \"p\"\nserver_key = " + key, "2 ways"},
		{"server = \"x\"\npsk_file = \"p\"", "local"},
		{"local = \"x\"\npsk_file = \"p\"", "server"},
		{"server = \"x y\"\nlocal = \"y\"\npsk_file = \"p\"", "neither a name nor an address"},
		{"server = \"x\"\nlocal = \"y\"\npsk_fil = \"p\"", "did you mean psk_file"},
		{"server = \"x\"\nuser = \"carol\"\npsk_file = \"p\"", "2 ways"},
		{"server = \"x\"\nlocal = \"y\"\npsk_file = \"p\"\npassword_file = \"p\"", "user"},
		{"server = \"x\"\nlocal = \"y\"\npsk_file = \"p\"\nca_file = \"p\"", "of no use"},
		{"server = \"x\"\nlocal = \"y\"\ncertificate_file = \"p\"\ncertificate_key_file = \"p\"", "ca_file"},
		{"server = \"x\"\nlocal = \"y\"\ncertificate_file = \"p\"\nca_file = \"p\"", "two files"},
	} {
		if _, err := ParseClient("client.toml", []byte("[gateway]\n"+tt.text+"\n")); err == nil || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%q gives %v, which does not say %q", tt.text, err, tt.says)
		}
	}
	if _, err := ParseClient("client.toml", []byte(minimalClient+"[gateway]\nserver = \"x\"\nlocal = \"y\"\npsk_file = \"p\"\n")); err == nil {
		t.Error("a gateway beside a godwit server is taken")
	}
}
