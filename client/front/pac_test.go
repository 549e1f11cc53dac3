package front

import (
	"strconv"
	"strings"
	"testing"
)

func TestParseBypass(t *testing.T) {
	b, err := ParseBypass([]string{"Printer.LAN", "*.Intranet.example.org.", "10.0.0.0/8", "192.168.1.7", "2001:DB8::7"})
	if err != nil {
		t.Fatal(err)
	}
	got := b.pac("127.0.0.1:1080")
	for _, want := range []string{
		`var names = ["printer.lan","2001:db8::7"];`, `var domains = [".intranet.example.org"];`,
		`var ranges = [["10.0.0.0","255.0.0.0"],["192.168.1.7","255.255.255.255"]];`, `return "PROXY 127.0.0.1:1080";`,
	} {
		if !strings.Contains(got, want) {
			t.Errorf("there is no %s in\n%s", want, got)
		}
	}
	if got := (Bypass{}).pac("x:1"); !strings.Contains(got, "var names = [];\nvar domains = [];\nvar ranges = [];\n") {
		t.Errorf("without any: %s", got)
	}
	for _, bad := range []string{"", "*", "*.", "a..b", ".lan", "http://a", "a:80", "10.0.0.0/33", "fe80::1%eth0", "2001:db8::/32", `a"];alert(1);["`, "*.*.lan", "bücher.example"} {
		if _, err := ParseBypass([]string{"good.example", bad}); err == nil || !strings.HasPrefix(err.Error(), strconv.Quote(bad)+": ") {
			t.Errorf("%q: %v", bad, err)
		}
	}
}
