package main

import (
	"bytes"
	"strings"
	"testing"
)

func TestWriteMetrics(t *testing.T) {
	var out bytes.Buffer
	writeMetrics(&out, exampleStatus())
	for _, want := range []string{
		"\ngodwit_client_connected 1\n", "\ngodwit_client_sent_bytes_total 999\n", "\ngodwit_client_registrations_total 2\n",
		"\ngodwit_client_round_trip_seconds{encapsulation=\"udp\"} 0.0215\n",
		"\ngodwit_client_last_gap_seconds{direction=\"in\",trigger=\"address\"} 0\n",
	} {
		if !strings.Contains("\n"+out.String(), want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
	if strings.Contains(out.String(), "192.168.1.7") {
		t.Error("addresses do not belong there")
	}
}
