import { frame } from "../lib/shell.js";
frame();
