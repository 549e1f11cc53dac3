package places

import (
	"bytes"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/godwit-net/godwit/mobility/netwatch"
	"github.com/godwit-net/godwit/transports"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func at(router string) netwatch.Attachment {
	return netwatch.Attachment{
		Source: netip.MustParseAddr("192.168.1.7"), Prefix: netip.MustParsePrefix("192.168.1.0/24"),
		Interface: "wlan0", Gateway: netip.MustParseAddr("192.168.1.1"), GatewayLink: router,
	}
}

func names(ns ...transports.Name) []transports.Name { return ns }

func TestMemory(t *testing.T) {
	path := filepath.Join(t.TempDir(), "networks.json")
	m := Open(path, nil)
	home, hotel, unknown := at("02:00:00:00:00:01"), at("02:00:00:00:00:02"), at("")
	m.Learn(home, names(transports.UDP, transports.TCP))
	m.Learn(hotel, names(transports.WebSocket))
	m.Learn(home, nil) // teaches nothing
	m.Learn(netwatch.Attachment{}, names(transports.UDP))
	check := func(m *Memory) {
		t.Helper()
		for _, tt := range []struct {
			at   netwatch.Attachment
			want []transports.Name
		}{
			{home, names(transports.UDP, transports.TCP)},
			{hotel, names(transports.WebSocket)},
			// The router has not been asked yet: the last such place it is.
			{unknown, names(transports.WebSocket)},
			{netwatch.Attachment{}, nil},
		} {
			if got := m.Order(tt.at); !slices.Equal(got, tt.want) {
				t.Errorf("%+v: got %v, want %v", tt.at, got, tt.want)
			}
		}
	}
	check(m)
	way := Path{MTU: 1400, Kept: 30, Lost: 60}
	m.LearnPath(hotel, way)
	m.LearnPath(hotel, Path{MTU: -1}) // makes no sense
	m.LearnPath(at("02:00:00:00:00:03"), Path{})
	m.Learn(hotel, names(transports.WebSocket)) // leaves it
	m.Close()
	reopened := Open(path, nil)
	if got := reopened.Path(hotel); got != way {
		t.Errorf("what was found out: %+v, want %+v", got, way)
	}
	if got := reopened.Path(home); got != (Path{}) {
		t.Errorf("of home: %+v, want nothing", got)
	}
	reopened.Close()
	m.Close()
	m.Close()
	m.Learn(home, names(transports.TCP)) // too late for the file, and no harm
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm()&0o077 != 0 {
		t.Errorf("file: %v, %v", info, err)
	}
	again := Open(path, nil)
	defer again.Close()
	check(again)
}

func TestBounded(t *testing.T) {
	m := Open("", nil)
	defer m.Close()
	for i := range 2 * MaxPlaces {
		m.Learn(at(fmt.Sprint(i)), names(transports.UDP))
	}
	if n := len(m.places); n != MaxPlaces {
		t.Errorf("%d places", n)
	}
	if m.Order(at("0")) == nil { // by what all of them have in common
		t.Error("the last place is forgotten")
	}
}

// TestTroubleIsAWarning has a broken file, and a folder that cannot be written.
func TestTroubleIsAWarning(t *testing.T) {
	var log bytes.Buffer
	logger := slog.New(slog.NewTextHandler(&log, nil))
	path := filepath.Join(t.TempDir(), "networks.json")
	if err := os.WriteFile(path, []byte(`{"places":[{"key":`), 0o600); err != nil {
		t.Fatal(err)
	}
	m := Open(path, logger)
	m.Learn(at("a"), names(transports.TCP))
	m.Close()
	if got := log.String(); strings.Count(got, "\n") != 1 || !strings.Contains(got, "level=WARN") {
		t.Errorf("log: %s", got)
	}
	log.Reset()
	m = Open(filepath.Join(filepath.Dir(path), "missing", "networks.json"), logger)
	m.Learn(at("a"), names(transports.TCP))
	m.Close()
	if got := log.String(); strings.Count(got, "\n") != 1 || !strings.Contains(got, "level=WARN") {
		t.Errorf("log: %s", got)
	}
	if got := m.Order(at("a")); !slices.Equal(got, names(transports.TCP)) {
		t.Errorf("got %v", got)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"places":[{"key":"00112233445566778899aabbccddeeff","worked":["udp"]}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		ps, err := parse(b)
		if err == nil && len(ps) > MaxPlaces {
			t.Errorf("%d places", len(ps))
		}
	})
}
