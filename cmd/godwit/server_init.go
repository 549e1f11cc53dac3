package main

import (
	"fmt"
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
passes most firewalls.`,
		Args: takes(),
	}
	dir := dirFlag(cmd, "server")
	endpoint := cmd.Flags().String("endpoint", "", "HOST:PORT as clients reach the server (required)")
	listen := cmd.Flags().String("listen", "", "ADDR:PORT to listen on (default every address and the endpoint's port)")
	allow := cmd.Flags().StringArray("allow", nil, "range that clients may reach although it is private or loopback; may be repeated")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if *endpoint == "" {
			return usage(cmd, "--endpoint is missing", "name the server as clients reach it, such as --endpoint vpn.example.org:443")
		}
		if err := config.CheckEndpoint(*endpoint); err != nil {
			return usage(cmd, "wrong --endpoint: "+err.Error(), "write it as vpn.example.org:443")
		}
		s := config.Server{
			Endpoint: *endpoint, Pool4: config.DefaultPool4, Pool6: config.DefaultPool6,
			Encapsulations: config.DefaultEncapsulations(),
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
