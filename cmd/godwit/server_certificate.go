package main

import (
	"fmt"
	"net"
	"slices"
	"time"

	"github.com/spf13/cobra"
)

func newServerCertificate() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "certificate",
		Short: "Make a certificate by which IKEv2 clients that are not godwit know the server",
		Long: `Makes a certificate for the server's names, vpn.crt and vpn.key in its folder, for
users that log in by name and password. The first time it makes an authority too,
authority.crt, which each device has to be told to trust; "godwit server user
profile" does that for Apple's devices and for Windows. Run it again before the
certificate ends after two years; devices notice nothing.

You do not need this with a certificate of a public authority: where acme_hosts or
certificate_file in server.toml is for the identity in [ikev2], that one is taken.`,
		Example: `  godwit server certificate
  godwit server certificate --name vpn.example.org --name 203.0.113.7`,
		Args: takes(),
	}
	dir := dirFlag(cmd, "server")
	names := cmd.Flags().StringArray("name", nil, "domain name or IP address that clients dial, the first of which the server calls itself (default the identity in [ikev2], or the endpoint's host)")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		d, err := loadServer(dir)
		if err != nil {
			return err
		}
		all := *names
		host, _, _ := net.SplitHostPort(d.Config.Endpoint)
		if len(all) == 0 {
			if k := d.Config.IKEv2; k != nil {
				all = append(all, k.Identity)
			}
			if !slices.Contains(all, host) {
				all = append(all, host)
			}
		}
		if err := d.IssueCertificate(all, time.Now()); err != nil {
			return err
		}
		out := cmd.OutOrStdout()
		fmt.Fprintf(out, "made vpn.crt for %s, of authority.crt\n", all[0])
		if k := d.Config.IKEv2; k == nil || k.Certificates.Certificate == "" {
			head := "add these lines below [ikev2] in server.toml"
			if k == nil {
				head = "add these lines at the end of server.toml"
			}
			fmt.Fprintf(out, "%s, and start the server again:\n\n", head)
			if k == nil {
				fmt.Fprintf(out, "[ikev2]\nidentity = %q\n", all[0])
			}
			fmt.Fprint(out, "certificate_file = \"vpn.crt\"\ncertificate_key_file = \"vpn.key\"\n")
		} else {
			fmt.Fprintln(out, "a running server takes it within a minute")
		}
		return nil
	}
	return cmd
}
