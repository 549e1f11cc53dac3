package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/godwit-net/godwit/config"
)

// maxExpiry bounds how long a link may be good, and keeps its time in the
// link's format.
const maxExpiry = 10 * 366 * 24 * time.Hour

func newServerInvite() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "invite NAME",
		Short: "Make a client and print its link",
		Long: `Makes a client called NAME and prints its link, on a terminal also as a QR code.
Give each device a link of its own.

The link holds the client's private key: whoever has it is that client. With
--once it holds an invitation instead: the device that uses it first makes a key
of its own, which never leaves it, and the link is good for nothing from then on.`,
		Example: "  godwit server invite laptop --once --expires 24h",
		Args:    takes("NAME"),
	}
	dir := dirFlag(cmd, "server")
	expires := cmd.Flags().Duration("expires", config.DefaultExpiry, "time within which the link must be used")
	once := cmd.Flags().Bool("once", false, "make a link that is good for one use")
	asQR := cmd.Flags().Bool("qr", false, "print the link as a QR code too (default on a terminal)")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if *expires < time.Second || *expires > maxExpiry {
			return usage(cmd, "wrong --expires: "+expires.String()+" is not between 1s and ten years", "write it as 168h")
		}
		d, err := loadServer(dir)
		if err != nil {
			return err
		}
		make := d.Invite
		if *once {
			make = d.InviteOnce
		}
		l, err := make(args[0], time.Now(), *expires)
		if err != nil {
			return err
		}
		out := cmd.OutOrStdout()
		fmt.Fprintln(out, l)
		if *asQR || !cmd.Flags().Changed("qr") && isTerminal(out) {
			return writeQR(out, l.String())
		}
		return nil
	}
	return cmd
}
