"""SMPP: the gateway between ESMEs and SMSCs that charges before it passes on."""
