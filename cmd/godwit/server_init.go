package main

import (
	"fmt"
	"math"
	"net"
	"net/netip"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/godwit-net/godwit/config"
)

func newServerInit() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "init --endpoint HOST:PORT",
		Short: "Make a server's keys and settings",
		Long: `Makes a server's keys and settings. HOST:PORT is how clients reach the server
from outside; all encapsulations use that one port, of UDP and of TCP. Port 443
passes most firewalls. Some networks pass UDP at other ports only, and those of
IPsec, 4500, at most places where phones make calls by Wi-Fi; clients try all that
are given at once.`,
		Example: `  godwit server init --endpoint vpn.example.org:443
  godwit server init --endpoint vpn.example.org:443 --udp-port 4500 --udp-port 3478`,
		Args: takes(),
	}
	dir := dirFlag(cmd, "server")
	endpoint := cmd.Flags().String("endpoint", "", "HOST:PORT as clients reach the server (required)")
	listen := cmd.Flags().String("listen", "", "ADDR:PORT to listen on (default every address and the endpoint's port)")
	allow := cmd.Flags().StringArray("allow", nil, "range that clients may reach although it is private or loopback; may be repeated")
	udpPorts := cmd.Flags().UintSlice("udp-port", nil, "another port at which UDP is served too, such as 4500; may be repeated")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if *endpoint == "" {
			return usage(cmd, "--endpoint is missing", "name the server as clients reach it, such as --endpoint vpn.example.org:443")
		}
		if err := config.CheckEndpoint(*endpoint); err != nil {
			return usage(cmd, "wrong --endpoint: "+err.Error(), "write it as vpn.example.org:443")
		}
		s := config.Server{
			Endpoint: *endpoint, Pool4: config.DefaultPool4, Pool6: config.DefaultPool6,
		}
		var more []uint16
		for _, p := range *udpPorts {
			if p == 0 || p > math.MaxUint16 {
				return usage(cmd, "wrong --udp-port: "+strconv.FormatUint(uint64(p), 10)+" is not between 1 and 65535", "write a port such as 4500")
			}
			more = append(more, uint16(p))
		}
		s.Encapsulations = config.WithUDPPorts(more)
		if err := config.CheckEncapsulations(s.Encapsulations); err != nil {
			return err
		}
		_, port, _ := net.SplitHostPort(*endpoint)
		n, _ := strconv.ParseUint(port, 10, 16) // checked above
		s.Listen = netip.AddrPortFrom(netip.IPv6Unspecified(), uint16(n))
		if *listen != "" {
			var err error
			if s.Listen, err = parseListen(cmd, *listen, "0.0.0.0:443"); err != nil {
				return err
			}
		}
		for _, a := range *allow {
			p, err := config.ParseAllow(a)
			if err != nil {
				return usage(cmd, "wrong --allow: "+err.Error(), "write a range such as 192.168.1.0/24")
			}
			s.Allow = append(s.Allow, p)
		}
		path, err := dir()
		if err != nil {
			return err
		}
		d, err := config.InitServer(path, s, time.Now())
		if err != nil {
			return err
		}
		fmt.Fprintf(cmd.OutOrStdout(), "server set up in %s\nnext: godwit server invite NAME, then godwit server run\n", d.Path())
		return nil
	}
	return cmd
}
