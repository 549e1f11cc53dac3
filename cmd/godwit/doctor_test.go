package main

import (
	"strings"
	"testing"

	"github.com/godwit-net/godwit/client"
)

func TestDiagnosis(t *testing.T) {
	names := []string{"esp", "udp", "tcp", "websocket", "http"}
	status := client.Status{Registrations: []client.Registration{{Copies: []client.Copy{
		{Encapsulation: "udp", Heard: true},
		{Encapsulation: "tcp", Heard: true, Answered: true, RTTms: 12, Verdict: "nat"},
		{Encapsulation: "websocket", Error: "dial: 403 Forbidden"},
		{Encapsulation: "http", Error: "dial: 502 Bad Gateway"},
	}}}}
	ahead, no := 120.0, false
	for _, tt := range []struct {
		name   string
		direct direct
		status client.Status
		steps  string // of all encapsulations, "ok" where it passes
		use    string
		says   []string
	}{
		{"mixed", direct{ClockAhead: &ahead, FastOpen: &no}, status, ", full size, ok, upgrade, request", "tcp", []string{"2m0s", "tcp_fastopen", "will use tcp", "403"}},
		{"one way", direct{}, client.Status{Registrations: []client.Registration{{Copies: []client.Copy{
			{Encapsulation: "udp", Arrived: true, ArrivedFull: true}, {Encapsulation: "tcp", Heard: true, Arrived: true, ArrivedFull: true},
			{Encapsulation: "websocket", Arrived: true}, {Encapsulation: "http", Answered: true},
		}}}}, ", way back, full size, way back, ok", "http", []string{
			"fails at: way back, the server hears it, and none", "full size pass to the server alone", "the server hears small packets, and none",
		}},
		{"two ways", direct{}, client.Status{
			Path: &client.PathStatus{Encapsulation: "udp", Down: &client.PathStatus{Encapsulation: "tcp"}},
			Registrations: []client.Registration{{Copies: []client.Copy{
				{Encapsulation: "udp", Arrived: true, ArrivedFull: true}, {Encapsulation: "tcp", Heard: true, Arrived: true, Came: true}, {Encapsulation: "websocket", Heard: true, Came: true},
			}}},
		}, ", way back, full size, way there, registration", "udp", []string{
			"fails at: way there, the server does not hear it", "full size come from the server alone", "will use udp to the server and tcp back",
		}},
		{"intercepted", direct{Interceptor: "CN=Office", TLSError: "issued by CN=Office"}, status, ", full size, ok, tls, request", "tcp", []string{"intercepted here: CN=Office"}},
		{"a portal", direct{Interceptor: "CN=Hotel", TLSError: "issued by CN=Hotel", FastOpen: &no}, client.Status{Portal: &client.PortalStatus{Evidence: "HTTP status 302", URL: "http://hotel.example/"}},
			", registration, registration, tls, request", "", []string{"HTTP status 302", "Open http://hotel.example/ in a browser", "intercepted here: CN=Hotel"}},
		{"NAT64", direct{NAT64: "64:ff9b::/96"}, status, ", full size, ok, upgrade, request", "tcp", []string{"IPv6 alone", "64:ff9b::/96"}},
		{"no name", direct{ResolveError: "no such host"}, client.Status{}, ", resolve, resolve, resolve, resolve", "", []string{"nothing", "no such host"}},
		{"no route", direct{RouteError: "network is unreachable"}, client.Status{}, ", route, route, route, route", "", []string{"unreachable"}},
		{"TCP refused", direct{ConnectError: "connection refused"}, client.Status{}, ", registration, connect, connect, connect", "", []string{"refused"}},
		{"esp in use", direct{}, client.Status{Path: &client.PathStatus{Encapsulation: "esp", Verdict: "none"}}, "ok, registration, registration, registration, registration", "esp", []string{"will use esp"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := &diagnosis{direct: tt.direct}
			f.judge(names, tt.status)
			var steps []string
			for _, w := range f.Ways {
				if w.Passes {
					w.Failed = "ok"
				}
				steps = append(steps, w.Failed)
			}
			if got := strings.Join(steps, ", "); got != tt.steps || f.Use != tt.use {
				t.Errorf("got %q, use %q; want %q, %q", got, f.Use, tt.steps, tt.use)
			}
			var out strings.Builder
			if err := f.print(&out); err != nil {
				t.Fatal(err)
			}
			for _, s := range tt.says {
				if !strings.Contains(out.String(), s) {
					t.Errorf("does not say %q:\n%s", s, &out)
				}
			}
		})
	}
}
