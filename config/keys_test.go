package config

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

// samples holds for every key a value that is not what the files of these tests
// say. A key without one fails the tests that walk all keys.
var samples = map[string]map[string]string{
	"server": {
		"endpoint": "other.example.org:8443", "listen": "127.0.0.1:5", "allow": "192.0.2.0/24,10.0.0.0/8",
		"allow_forward": "tcp *:80, udp inner:53 laptop", "pool4": "10.9.0.0/24", "pool6": "fd00:1::/64", "encapsulations": "tcp, udp", "websocket_path": "/other",
		"site": "/var/www", "plain_http": "redirect", "trusted_proxies": "10.0.0.0/8,192.0.2.1", "verify": "webpki", "stealth": "true", "metrics": "[::1]:9999",
		"certificate_file": "a.crt", "certificate_key_file": "a.key", "acme_hosts": "vpn.example.org", "acme_directory": "https://ca.example/",
		"offload": "false", "recovery": "false", "duplicate": "true", "replay_memory": "4", "log_level": "debug", "post_quantum": "require",
		"ikev2.identity": "other.example.org", "ikev2.listen": "127.0.0.1:4500", "ikev2.dns": "192.0.2.1,2001:db8::1",
		"ikev2.certificate_file": "a.crt", "ikev2.certificate_key_file": "a.key", "ikev2.ca_file": "b.crt",
	},
	"client": {
		"name": "phone", "server": "other.example.org:8443", "server_key": "AQECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=",
		"cert_hash": strings.Repeat("ab", 32), "websocket_path": "/other", "listen": "127.0.0.1:5", "encapsulations": "tcp",
		"enrolment": strings.Repeat("AAAB", 32), "tls": "false", "http_without_tls": "false", "server_name": "www.example.org", "http_host": "www.example.org", "verify": "webpki", "fingerprint": "go",
		"proxy": "none", "decides": "client", "standby": "true", "early_data": "always", "post_quantum": "never", "offload": "false", "recovery": "false", "duplicate": "true", "replay_memory": "4", "log_level": "debug",
		"tun": "true", "kill_switch": "true", "tun_include": "192.0.2.0/24,2001:db8::/32", "tun_exclude": "192.0.2.1",
		"tun_lan": "false", "tun_dns": "9.9.9.9", "tun_device": "tun7", "tun_mtu": "1400",
		"bypass":         "printer.lan, *.intranet.example.org, 192.168.1.0/24",
		"remote_forward": "tcp [::]:1 a:1, udp inner:2 b:2", "forward": "tcp 127.0.0.1:1 a:1, udp 127.0.0.1:2 b:2",
		"gateway.server": "other.example.org:4500", "gateway.identity": "other", "gateway.local": "other@example.org",
		"gateway.psk_file": "other.psk", "gateway.server_key": "AQECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=", "gateway.key_file": "other.key",
		"gateway.certificate_file": "a.crt", "gateway.certificate_key_file": "a.key", "gateway.ca_file": "b.crt",
		"gateway.user": "dave", "gateway.password_file": "other.password",
	},
}

// bases are files in order, which each key of samples is put before.
func base(role, key string) string {
	switch {
	case role == "server" && strings.HasPrefix(key, "ikev2.c"):
		return minimalServer + "[ikev2]\ncertificate_file = \"x\"\ncertificate_key_file = \"y\"\nca_file = \"z\"\n"
	case role == "server" && strings.HasPrefix(key, "certificate_"):
		return minimalServer + "certificate_file = \"x\"\ncertificate_key_file = \"y\"\n"
	case role == "server":
		return minimalServer
	case strings.HasPrefix(key, "gateway.c"):
		return "[gateway]\nserver = \"a\"\nlocal = \"b\"\ncertificate_file = \"x\"\ncertificate_key_file = \"y\"\nca_file = \"z\"\n"
	case key == "gateway.user" || key == "gateway.password_file":
		return "[gateway]\nserver = \"a\"\nuser = \"carol\"\n"
	case key == "gateway.server_key" || key == "gateway.key_file":
		return "[gateway]\nserver = \"a\"\nserver_key = \"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\"\n"
	case strings.HasPrefix(key, "gateway."):
		return "[gateway]\nserver = \"a\"\nlocal = \"b\"\npsk_file = \"c\"\n"
	}
	return minimalClient
}

func parse(role, text string, over ...Override) (any, error) {
	if role == "server" {
		return ParseServer("server.toml", []byte(text), over...)
	}
	return ParseClient("client.toml", []byte(text), over...)
}

// Every key there is can come from the environment, changes what it names, and
// tells where a wrong value stands.
func TestEveryKeyFromTheEnvironment(t *testing.T) {
	for _, role := range roles {
		known := map[string]bool{}
		for _, k := range Keys(role) {
			known[k.Name] = true
			t.Run(role+" "+k.Name, func(t *testing.T) {
				sample, ok := samples[role][k.Name]
				if !ok {
					t.Fatal("this key has no sample: add one")
				}
				before, err := parse(role, base(role, k.Name))
				if err != nil {
					t.Fatal(err)
				}
				over, err := Environment(role, []string{k.Variable(role) + "=" + sample, "HOME=/"})
				if err != nil || len(over) != 1 {
					t.Fatalf("%v, %v", over, err)
				}
				after, err := parse(role, base(role, k.Name), over...)
				if err != nil {
					t.Fatal(err)
				}
				if reflect.DeepEqual(before, after) {
					t.Errorf("%s=%s changes nothing", k.Variable(role), sample)
				}
				if k.Kind == Flag {
					over[0].Value = "perhaps"
					_, err := parse(role, base(role, k.Name), over...)
					wantError(t, err, "not a boolean, the environment, "+k.Variable(role))
				}
			})
		}
		for name := range samples[role] {
			if !known[name] {
				t.Errorf("there is a sample for %s %s, which is no key", role, name)
			}
		}
		// What came from the file is as good as what came from here.
		for name := range Docs(role) {
			if !known[name] {
				t.Errorf("the example of the %s explains %s, which is no key", role, name)
			}
		}
		for name := range known {
			if len(Docs(role)[name]) < 20 {
				t.Errorf("the example of the %s does not explain %s: %q", role, name, Docs(role)[name])
			}
		}
	}
}

func TestWrongVariables(t *testing.T) {
	for _, tt := range []struct {
		variable string
		want     []string
	}{
		{"GODWIT_CLIENT_LISEN=x", []string{"unknown setting, the environment, GODWIT_CLIENT_LISEN", "did you mean GODWIT_CLIENT_LISTEN?"}},
		{"GODWIT_CLINET_LISTEN=x", []string{"did you mean GODWIT_CLIENT_LISTEN?"}},
		{"GODWIT_CLIENT_COLOUR=x", []string{"unknown setting", "godwit config example client"}},
	} {
		_, err := Environment("client", []string{tt.variable})
		wantError(t, err, tt.want...)
	}
	for _, fine := range []string{"GODWIT_LAB_LOG=1", "GODWIT_CLIENT_LISTEN=", "GODWIT_SERVER_LISTEN=x", "GODWIT_CLIENT_DIR=/x", "PATH=/bin"} {
		if over, err := Environment("client", []string{fine}); err != nil || len(over) != 0 {
			t.Errorf("%s gives %v, %v", fine, over, err)
		}
	}
	_, err := ParseClient("client.toml", []byte(minimalClient), Override{"listen", "here", "--listen"})
	wantError(t, err, `"here" is not an address and a port, --listen: write it as "127.0.0.1:1080"`)
}

// An error names the line, also of a key that nobody knows.
func TestErrorsNameTheLine(t *testing.T) {
	for _, tt := range []struct{ text, want string }{
		{minimalClient + "\n\nlisten = 1\n", "client.toml line 8, listen"},
		{minimalClient + "forward = [\n  \"tcp\", # one = two\n]\ncolour = 1\nbeta = 2\n", `client.toml line 9, "colour"`},
		{minimalClient + "name = \"\"\"\nlisten = 3\n\"\"\"\n", "client.toml line 6"},
		{"\n[gateway]\n server = \"a b\"\n", "client.toml line 3, [gateway], server"},
		{"[gateway]\nserver = \"a\"\npsk_fil = \"x\"\n", `client.toml line 3, [gateway], "psk_fil"`},
	} {
		_, err := ParseClient("client.toml", []byte(tt.text))
		wantError(t, err, tt.want)
	}
}

func TestChanged(t *testing.T) {
	d, err := InitServer(filepath.Join(t.TempDir(), "s"), Server{
		Endpoint: "a.example:1", Listen: DefaultListen, Pool4: DefaultPool4, Pool6: DefaultPool6, Encapsulations: DefaultEncapsulations(),
	}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(d.Path(), serverFile)
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	changed := strings.Replace(string(text), `log_level = "info"`, `log_level = "debug" # more`, 1)
	changed = strings.Replace(changed, "allow = []", `allow = ["10.0.0.0/8"]`, 1) + "\n[ikev2]\ndns = [\"192.0.2.1\"]\n"
	if err := os.WriteFile(file, []byte(changed), 0o600); err != nil {
		t.Fatal(err)
	}
	next, err := LoadServer(d.Path())
	if err != nil {
		t.Fatal(err)
	}
	if got, want := d.Changed(next), []string{"allow", "ikev2.dns", "log_level"}; !reflect.DeepEqual(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := next.Changed(next); got != nil {
		t.Errorf("nothing changed but %q", got)
	}
}
