package config

import (
	"errors"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// noon is the time at which most tests happen.
var noon = time.Date(2031, 5, 4, 12, 0, 0, 0, time.UTC)

// wantError checks that err is an *Error of one line with these parts.
func wantError(t *testing.T, err error, parts ...string) {
	t.Helper()
	var e *Error
	if !errors.As(err, &e) {
		t.Fatalf("got %v, want an *Error", err)
	}
	if strings.ContainsAny(err.Error(), "\r\n") {
		t.Errorf("the error has several lines: %q", err)
	}
	for _, p := range parts {
		if !strings.Contains(err.Error(), p) {
			t.Errorf("%q does not contain %q", err, p)
		}
	}
}

// newServer makes a server's folder.
func newServer(t *testing.T) *ServerDir {
	t.Helper()
	d, err := InitServer(t.TempDir(), exampleServer(), noon)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func exampleServer() Server {
	return Server{
		Endpoint: "vpn.example.org:443", Listen: defaultServerListen("vpn.example.org:443"),
		Pool4: DefaultPool4, Pool6: DefaultPool6, Encapsulations: DefaultEncapsulations(),
	}
}
