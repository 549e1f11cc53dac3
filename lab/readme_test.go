package lab_test

import (
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/godwit-net/godwit/lab"
)

func TestWalkToTheTrain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in := lab.New(1)
		defer in.Close()

		// 20 ms at home or on the train and 5 ms at the server: one round trip is 50 ms.
		home := in.AddNetwork("home", lab.NetworkConfig{
			Prefixes: lab.Prefixes("192.168.1.0/24"),
			Link:     lab.Link{Delay: 20 * time.Millisecond},
			NAT:      &lab.NAT{Outside: lab.Addrs("198.51.100.7"), ChangePort: true},
		})
		train := in.AddNetwork("train", lab.NetworkConfig{
			Prefixes: lab.Prefixes("10.0.0.0/24"),
			Link:     lab.Link{Delay: 20 * time.Millisecond, Loss: 0.01, Rate: 500_000},
			NAT:      &lab.NAT{Outside: lab.Addrs("198.51.100.8")},
			Firewall: lab.OnlyTCP,
		})
		dc := in.AddNetwork("dc", lab.NetworkConfig{Link: lab.Link{Delay: 5 * time.Millisecond}})

		server := in.AddHost("server")
		server.Attach("eth0", dc, lab.Addrs("203.0.113.1")...)
		laptop := in.AddHost("laptop")
		laptop.Attach("wlan0", home)

		listener, err := server.ListenTCP(t.Context(), server443)
		if err != nil {
			t.Fatal(err)
		}
		defer listener.Close()
		recording := in.Record()

		changes := laptop.Changes()
		laptop.Move("wlan0", train)
		<-changes
		clock := lab.NewClock(50 * time.Millisecond)
		conn, err := laptop.DialTCP(t.Context(), laptop.Addresses()[0], server443)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if got := clock.Rounds(); got != 1 {
			t.Errorf("connected after %v round trips, want 1", got)
		}
		if udp := recording.Events(func(e lab.Event) bool { return e.Proto == lab.UDP }); len(udp) > 0 {
			t.Errorf("UDP was sent: %v", udp)
		}
	})
}

// The README shows the test above as it is.
func TestReadme(t *testing.T) {
	source, readme := string(must(os.ReadFile("readme_test.go"))), string(must(os.ReadFile("README.md")))
	_, example, _ := strings.Cut(source, "func TestWalkToTheTrain")
	example, _, _ = strings.Cut(example, "\n}\n")
	if !strings.Contains(readme, "func TestWalkToTheTrain"+example+"\n}\n") {
		t.Error("README.md does not show TestWalkToTheTrain as it is")
	}
}
