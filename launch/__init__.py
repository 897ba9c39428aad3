"""The commands: they parse flags and wire the three libraries together. Nothing else imports this
package."""
