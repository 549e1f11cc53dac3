package config

import (
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"strings"
	"testing"
	"time"
)

func exampleLink() *Link {
	l := &Link{
		Endpoint: "vpn.example.org:443", WebSocketPath: "/secret", Name: "laptop",
		ServerKey: make([]byte, 32), Expires: noon.Add(time.Hour),
	}
	for i := range 32 {
		l.ServerKey[i], l.CertHash[i], l.Seed[i] = byte(i), byte(64+i), byte(128+i)
	}
	return l
}

// exampleLinkText is the link of docs/protocol.md.
const exampleLinkText = "godwit://v1/AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh9AQUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVpbXF1eX4CBgoOEhYaHiImKi4yNjo-QkZKTlJWWl5iZmpucnZ6fAAAAAHNf61ATdnBuLmV4YW1wbGUub3JnOjQ0Mwcvc2VjcmV0BmxhcHRvcKD-0djK4I83"

func TestLinkFormat(t *testing.T) {
	if got := exampleLink().String(); got != exampleLinkText {
		t.Errorf("the format of links has changed:\n%s", got)
	}
	got, err := ParseLink(" "+exampleLinkText+"\r\n", noon)
	if err != nil || !reflect.DeepEqual(got, exampleLink()) {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestEveryDamageIsNoticed(t *testing.T) {
	for i := range exampleLinkText {
		if _, err := ParseLink(exampleLinkText[:i], noon); !errors.Is(err, ErrDamaged) {
			t.Fatalf("cut to %d characters: %v", i, err)
		}
		for _, c := range "A/" {
			changed := exampleLinkText[:i] + string(c) + exampleLinkText[i+1:]
			// Another version has an error of its own.
			if _, err := ParseLink(changed, noon); changed != exampleLinkText && err == nil {
				t.Fatalf("character %d changed to %c: no error", i, c)
			}
		}
	}
	_, err := ParseLink(exampleLinkText+"A", noon)
	wantError(t, err, "this link is damaged: copy it whole")
	_, err = ParseLink("https://example.org/", noon)
	wantError(t, err, "this is not a godwit link")
	_, err = ParseLink("godwit://v5/AAAA", noon)
	wantError(t, err, "another version")
	if _, err := ParseLink(linkPrefix+strings.Repeat("A", 1<<20), noon); !errors.Is(err, ErrDamaged) {
		t.Errorf("a megabyte: %v", err)
	}
}

// A right checksum does not make nonsense right.
func TestLinkOfNonsense(t *testing.T) {
	for name, change := range map[string]func(*Link){
		"endpoint": func(l *Link) { l.Endpoint = "vpn.example.org" },
		"path":     func(l *Link) { l.WebSocketPath = "secret" },
		"name":     func(l *Link) { l.Name = "../../etc/passwd" },
		"expiry":   func(l *Link) { l.Expires = time.Unix(-1, 0) },
	} {
		l := exampleLink()
		change(l)
		if _, err := ParseLink(l.String(), noon); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Links of servers with more UDP ports are of versions of their own, so that a reader
// that knows nothing of them says so.
func TestLinkWithPorts(t *testing.T) {
	for prefix, once := range map[string]bool{"godwit://v3/": false, "godwit://v4/": true} {
		l := exampleLink()
		l.Once, l.UDPPorts = once, []uint16{4500, 3478}
		text := l.String()
		got, err := ParseLink(text, noon)
		if !strings.HasPrefix(text, prefix) || err != nil || !reflect.DeepEqual(got, l) {
			t.Errorf("%s gives %+v, %v", text, got, err)
		}
		if _, err := ParseLink(text[:len(text)-3], noon); !errors.Is(err, ErrDamaged) {
			t.Errorf("cut: %v", err)
		}
	}
	for name, ports := range map[string][]uint16{"no port": {0}, "twice": {4500, 4500}, "too many": make([]uint16, 9)} {
		l := exampleLink()
		l.UDPPorts = ports
		if _, err := ParseLink(l.String(), noon); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestLinkExpires(t *testing.T) {
	end := exampleLink().Expires
	if _, err := ParseLink(exampleLinkText, end.Add(-time.Nanosecond)); err != nil {
		t.Errorf("at the last moment: %v", err)
	}
	_, err := ParseLink(exampleLinkText, end)
	if !errors.Is(err, ErrExpired) {
		t.Errorf("at its end: %v", err)
	}
	wantError(t, err, "expired on 4 May 2031 13:00 UTC, and this machine's clock says 4 May 2031 13:00 UTC", "godwit server invite", "set the clock")
}

func TestLinkIsNotLogged(t *testing.T) {
	var b strings.Builder
	slog.New(slog.NewTextHandler(&b, nil)).Info("joined", "link", exampleLink())
	if strings.Contains(b.String(), "Seed") || strings.Contains(b.String(), fmt.Sprint(exampleLink().Seed)) || strings.Contains(b.String(), linkPrefix) {
		t.Errorf("the log holds the private key: %s", b.String())
	}
}

func FuzzParseLink(f *testing.F) {
	f.Add(exampleLinkText)
	f.Add(exampleLinkText[:100])
	f.Add("godwit://v1/")
	f.Add("godwit://v2/AAAA")
	l := exampleLink()
	l.UDPPorts = []uint16{4500}
	f.Add(l.String())
	f.Fuzz(func(t *testing.T, s string) {
		l, err := ParseLink(s, noon)
		if err != nil {
			return
		}
		again, err := ParseLink(l.String(), noon)
		if err != nil || !reflect.DeepEqual(again, l) {
			t.Errorf("%+v became %+v, %v", l, again, err)
		}
	})
}

// The checksum keeps the fuzzer from what lies behind it, so this target makes
// it right.
func FuzzParseLinkPayload(f *testing.F) {
	f.Add(exampleLink().Endpoint, "/secret", "laptop", int64(2000000000), uint16(0))
	f.Add("[::1]:1", "/", "", int64(-1), uint16(4500))
	f.Fuzz(func(t *testing.T, endpoint, path, name string, expires int64, port uint16) {
		if len(endpoint) > 255 || len(path) > 255 || len(name) > 255 {
			return
		}
		l := exampleLink()
		l.Endpoint, l.WebSocketPath, l.Name, l.Expires = endpoint, path, name, time.Unix(expires, 0).UTC()
		if port != 0 {
			l.UDPPorts = []uint16{port, ^port}
		}
		got, err := ParseLink(l.String(), noon)
		if err == nil && !reflect.DeepEqual(got, l) {
			t.Errorf("%+v became %+v", l, got)
		}
		if err == nil && CheckName(name) != nil {
			t.Errorf("the name %q came through", name)
		}
	})
}
